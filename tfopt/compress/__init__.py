"""Smaller models: pruning, quantization and the verified export of what comes out."""

from tfopt.compress.pruning import CubicSparsity, OneShotSparsity, Pruning

__all__ = ["CubicSparsity", "OneShotSparsity", "Pruning"]
