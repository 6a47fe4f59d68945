"""tfopt.distribute: one line from a laptop to several machines, with results that equal one device."""

from tfopt.distribute.data_service import prepare_remotely, serve_data
from tfopt.distribute.description import StrategyDescription, describe, is_chief, worker_index
from tfopt.distribute.launch import launch
from tfopt.distribute.spawn import spawn
from tfopt.distribute.strategy import make_strategy, restore_keras

__all__ = [
    "StrategyDescription",
    "describe",
    "is_chief",
    "launch",
    "make_strategy",
    "prepare_remotely",
    "restore_keras",
    "serve_data",
    "spawn",
    "worker_index",
]
