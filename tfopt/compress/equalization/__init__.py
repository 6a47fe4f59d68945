"""Equalization: the same function with channels of equal size, which lose less to int8."""

from tfopt.compress.equalization.equalize import equalize

__all__ = ["equalize"]
