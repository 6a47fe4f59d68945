"""tfopt.tune"""
