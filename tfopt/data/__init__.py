"""Image data: loading, resizing once, reproducible batches, augmentation, balance and reduction."""

from tfopt.data.augment import Augment
from tfopt.data.balance import balance, class_weights, weighted
from tfopt.data.batching import ramped_batches
from tfopt.data.dataset import ImageDataset
from tfopt.data.decode import BadImageError
from tfopt.data.order import Position
from tfopt.data.pipeline import pipeline
from tfopt.data.sources import load

__all__ = [
    "Augment",
    "BadImageError",
    "ImageDataset",
    "Position",
    "balance",
    "class_weights",
    "load",
    "pipeline",
    "ramped_batches",
    "weighted",
]
