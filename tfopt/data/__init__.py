"""tfopt.data"""
