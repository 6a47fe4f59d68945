"""Image data: loading, resizing once, reproducible batches, augmentation, balance and reduction."""

from typing import TYPE_CHECKING

from tfopt._lazy import lazy_names

if TYPE_CHECKING:
    from tfopt.data.augment import Augment
    from tfopt.data.batching import ramped_batches
    from tfopt.data.class_balance import balance
    from tfopt.data.dataset import ImageDataset
    from tfopt.data.decode import BadImageError
    from tfopt.data.input_pipeline import pipeline
    from tfopt.data.integrity import ImageCheck, check_images
    from tfopt.data.leaks import Leaks, find_leaks
    from tfopt.data.loading import load
    from tfopt.data.preparing import prepare
    from tfopt.data.reduce import PCA, embed_2d
    from tfopt.data.sampler import Position
    from tfopt.data.weighting import class_weights, weighted

__all__ = [
    "Augment",
    "BadImageError",
    "ImageCheck",
    "ImageDataset",
    "Leaks",
    "PCA",
    "Position",
    "balance",
    "check_images",
    "class_weights",
    "embed_2d",
    "find_leaks",
    "load",
    "pipeline",
    "prepare",
    "ramped_batches",
    "weighted",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Augment": "augment",
        "BadImageError": "decode",
        "ImageCheck": "integrity",
        "ImageDataset": "dataset",
        "PCA": "reduce",
        "Leaks": "leaks",
        "Position": "sampler",
        "balance": "class_balance",
        "check_images": "integrity",
        "class_weights": "weighting",
        "embed_2d": "reduce",
        "find_leaks": "leaks",
        "load": "loading",
        "pipeline": "input_pipeline",
        "prepare": "preparing",
        "ramped_batches": "batching",
        "weighted": "weighting",
    },
)
