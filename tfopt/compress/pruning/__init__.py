"""tfopt.compress.pruning"""
