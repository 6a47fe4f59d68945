"""tfopt.schedules"""
