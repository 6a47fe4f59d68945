"""Clustering: callbacks and constraints that let many weights share few values."""

from tfopt.compress.clustering.callback import Clustering

__all__ = ["Clustering"]
