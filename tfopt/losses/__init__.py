"""tfopt.losses"""
