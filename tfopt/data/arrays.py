"""Checks arrays of images and labels and turns them into splits."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfopt._checks import message
from tfopt.data.access import InMemory


def from_arrays(source: Any, class_names: Any) -> tuple[dict[str, InMemory], tuple[str, ...]]:
    """Splits in memory and class names from (x, y) or {"train": (x, y), ...}."""
    pairs = dict(source) if isinstance(source, Mapping) else {"train": source}
    extra = set(pairs) - {"train", "validation", "test"}
    if extra or "train" not in pairs:
        expected = "(x, y) or a dict with 'train' and, if they exist, 'validation' and 'test'"
        raise ValueError(message("source", expected, sorted(pairs)))
    splits = {name: _checked(name, pair) for name, pair in pairs.items()}
    classes = int(max(split.labels.max() for split in splits.values())) + 1
    names = tuple(class_names) if class_names is not None else tuple(map(str, range(classes)))
    if len(names) < classes:
        raise ValueError(message("class_names", f"{classes} names", names))
    counts = np.bincount(splits["train"].labels, minlength=len(names))
    if len(names) < 2 or 0 in counts:
        empty = [name for name, count in zip(names, counts) if count == 0]
        fix = f"Classes without images: {empty}." if empty else "A classifier needs two classes."
        raise ValueError(
            message("y", "labels 0 ... classes - 1, each present in train", counts.tolist(), fix)
        )
    return splits, names


def _checked(name: str, pair: Any) -> InMemory:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(message("source", "a pair (x, y) of arrays", type(pair).__name__))
    x, y = np.asarray(pair[0]), np.asarray(pair[1])
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[-1] not in (1, 3) or 0 in x.shape:
        fix = f"In {name!r}."
        raise ValueError(message("x", "images [examples, height, width, 1 or 3]", x.shape, fix))
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        received = f"{y.dtype} {y.shape}"
        fix = "Turn one-hot labels into integers with y.argmax(-1)." if y.ndim == 2 else ""
        raise ValueError(message("y", f"integers >= 0 of shape ({len(x)},)", received, fix))
    return InMemory(np.repeat(_uint8(x), 3, axis=-1) if x.shape[-1] == 1 else _uint8(x), y)


def _uint8(x: np.ndarray) -> np.ndarray:
    if x.dtype == np.uint8:
        return x
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 255):  # false for NaN as well
        raise ValueError(message("x", "pixels in [0, 255]", f"[{low:g}, {high:g}]", "Rescale them."))
    if np.issubdtype(x.dtype, np.floating) and 0 < high <= 1:
        fix = "Multiply them by 255; the models hold their own scaling."
        raise ValueError(message("x", "pixels in [0, 255]", f"[{low:g}, {high:g}]", fix))
    return np.rint(x).astype(np.uint8)
