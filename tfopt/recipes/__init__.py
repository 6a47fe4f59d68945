"""tfopt.recipes"""
