"""Image data: loading, resizing once, reproducible batches, augmentation, balance and reduction.

Only `PCA` is a serialisable class; the other parts are imported at their first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tfopt.data.reduce import PCA, embed_2d

if TYPE_CHECKING:
    from tfopt.data.augment import Augment
    from tfopt.data.batching import ramped_batches
    from tfopt.data.class_balance import balance, class_weights, weighted
    from tfopt.data.dataset import ImageDataset
    from tfopt.data.decode import BadImageError
    from tfopt.data.input_pipeline import pipeline
    from tfopt.data.integrity import ImageCheck, check_images
    from tfopt.data.leaks import Leaks, find_leaks
    from tfopt.data.order import Position
    from tfopt.data.sources import load

_LAZY = {
    "Augment": "augment",
    "BadImageError": "decode",
    "ImageCheck": "integrity",
    "ImageDataset": "dataset",
    "Leaks": "leaks",
    "Position": "order",
    "balance": "class_balance",
    "check_images": "integrity",
    "class_weights": "class_balance",
    "find_leaks": "leaks",
    "load": "sources",
    "pipeline": "input_pipeline",
    "ramped_batches": "batching",
    "weighted": "class_balance",
}

__all__ = [
    "PCA",
    "Augment",
    "BadImageError",
    "ImageCheck",
    "ImageDataset",
    "Leaks",
    "Position",
    "balance",
    "check_images",
    "class_weights",
    "embed_2d",
    "find_leaks",
    "load",
    "pipeline",
    "ramped_batches",
    "weighted",
]


def __getattr__(name: str) -> Any:
    """Imports a part when one of its names is first asked for (PEP 562)."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"tfopt.data.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'tfopt.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
