"""tfopt.distribute: one line from a laptop to several machines, with results that equal one device."""

from typing import TYPE_CHECKING

from tfopt._lazy import lazy_names

if TYPE_CHECKING:
    from tfopt.distribute.data_service import prepare_remotely, serve_data
    from tfopt.distribute.description import StrategyDescription, describe, is_chief, worker_index
    from tfopt.distribute.launching import launch
    from tfopt.distribute.scaling import Scaled, scale_learning_rate
    from tfopt.distribute.sharding import sharded
    from tfopt.distribute.spawning import spawn
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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Scaled": "scaling",
        "StrategyDescription": "description",
        "describe": "description",
        "is_chief": "description",
        "launch": "launching",
        "make_strategy": "strategy",
        "prepare_remotely": "data_service",
        "restore_keras": "strategy",
        "scale_learning_rate": "scaling",
        "serve_data": "data_service",
        "sharded": "sharding",
        "spawn": "spawning",
        "worker_index": "description",
    },
)
