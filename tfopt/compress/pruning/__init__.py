"""Pruning: callbacks that set weights to zero during `fit` and keep them there."""

from tfopt.compress.pruning.callback import Pruning
from tfopt.compress.pruning.schedules import CubicSparsity, OneShotSparsity

__all__ = ["CubicSparsity", "OneShotSparsity", "Pruning"]
