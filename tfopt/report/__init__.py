"""tfopt.report"""
