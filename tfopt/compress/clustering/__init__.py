"""Clustering: callbacks and constraints that let many weights share few values."""
