"""tfopt.callbacks"""
