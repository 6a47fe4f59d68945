"""tfopt.compress"""
