"""Image data: loading, resizing once, reproducible batches, augmentation, balance and reduction."""

from tfopt.data.dataset import ImageDataset
from tfopt.data.decode import BadImageError
from tfopt.data.sources import load

__all__ = ["BadImageError", "ImageDataset", "load"]
