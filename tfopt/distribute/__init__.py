"""tfopt.distribute: one line from a laptop to several machines, with results that equal one device."""

from tfopt.distribute.data_service import prepare_remotely, serve_data
from tfopt.distribute.description import StrategyDescription, describe, is_chief, worker_index
from tfopt.distribute.launch import launch
from tfopt.distribute.scaling import Scaled, scale_learning_rate
from tfopt.distribute.sharding import sharded
from tfopt.distribute.spawn import spawn
from tfopt.distribute.strategy import make_strategy, restore_keras

__all__ = [
    "Scaled",
    "StrategyDescription",
    "describe",
    "is_chief",
    "launch",
    "make_strategy",
    "prepare_remotely",
    "restore_keras",
    "scale_learning_rate",
    "serve_data",
    "sharded",
    "spawn",
    "worker_index",
]
