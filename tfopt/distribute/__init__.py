"""tfopt.distribute"""
