"""tfopt.models"""
