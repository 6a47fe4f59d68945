"""tfopt.optimizers"""
