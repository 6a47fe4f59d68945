"""tfopt.data.augment"""
