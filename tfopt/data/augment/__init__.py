"""Augmentation as pure functions of (seed, epoch, example)."""

from tfopt.data.augment.augment import Augment

__all__ = ["Augment"]
