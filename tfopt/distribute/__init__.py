"""tfopt.distribute: one line from a laptop to several machines, with results that equal one device."""

from tfopt.distribute.description import StrategyDescription, describe
from tfopt.distribute.strategy import make_strategy

__all__ = ["StrategyDescription", "describe", "make_strategy"]
