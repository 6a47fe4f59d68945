"""The contract of an optimizer, as checks for optimizers of your own: see `check_optimizer`."""

from tfopt.testing.contract import CHECKS, check_optimizer

__all__ = ["CHECKS", "check_optimizer"]
