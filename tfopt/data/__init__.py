"""Image data: loading, resizing once, reproducible batches, augmentation, balance and reduction."""

from tfopt.data.augment import Augment
from tfopt.data.balance import balance, class_weights, weighted
from tfopt.data.batching import ramped_batches
from tfopt.data.dataset import ImageDataset
from tfopt.data.decode import BadImageError
from tfopt.data.integrity import ImageCheck, check_images
from tfopt.data.order import Position
from tfopt.data.pipeline import pipeline
from tfopt.data.reduce import PCA, embed_2d
from tfopt.data.sources import load

__all__ = [
    "PCA",
    "Augment",
    "BadImageError",
    "ImageCheck",
    "ImageDataset",
    "Position",
    "balance",
    "check_images",
    "class_weights",
    "embed_2d",
    "load",
    "pipeline",
    "ramped_batches",
    "weighted",
]
