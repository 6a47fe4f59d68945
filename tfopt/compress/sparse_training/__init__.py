"""Sparse training: models that are sparse from the first step, with connections that move."""

from tfopt.compress.sparse_training.callback import SparseTraining

__all__ = ["SparseTraining"]
