"""Checks arrays of images and labels and turns them into splits."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfopt._checks import message
from tfopt.data.random_access import InMemory
from tfopt.data.targets import check_task, check_weights, named_targets


def from_arrays(
    source: Any, class_names: Any, task: str | None
) -> tuple[dict[str, InMemory], tuple[str, ...], str]:
    """Splits in memory, class names and task from (x, y[, weights]) or {"train": (x, y[, weights]), ...}."""
    pairs = dict(source) if isinstance(source, Mapping) else {"train": source}
    extra = set(pairs) - {"train", "validation", "test"}
    if extra or "train" not in pairs:
        expected = "(x, y) or a dict with 'train' and, if they exist, 'validation' and 'test'"
        raise ValueError(message("source", expected, sorted(pairs)))
    checked = {name: _checked(name, pair) for name, pair in pairs.items()}
    if len({len(parts) for parts in checked.values()}) > 1:
        lacking = [name for name, parts in checked.items() if len(parts) == 2]
        raise ValueError(message("source", "with weights in all splits or in none", f"none in {lacking}"))
    labels = {name: parts[1] for name, parts in checked.items()}
    decimals = all(np.issubdtype(y.dtype, np.floating) and (y % 1).any() for y in labels.values())
    task = check_task(task) or ("regression" if decimals else "classification")
    labels, names = named_targets(labels, class_names, task)
    return {name: InMemory(x, labels[name], *more) for name, (x, _, *more) in checked.items()}, names, task


def _checked(name: str, pair: Any) -> tuple[np.ndarray, ...]:
    """uint8 images [examples, height, width, 3], labels as they are, and weights if there are some."""
    if not isinstance(pair, (tuple, list)) or len(pair) not in (2, 3):
        expected = "a pair (x, y) of arrays, or (x, y, sample_weights)"
        raise ValueError(message("source", expected, type(pair).__name__))
    x, y = np.asarray(pair[0]), np.asarray(pair[1])
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[-1] not in (1, 3) or 0 in x.shape:
        fix = f"In {name!r}."
        raise ValueError(message("x", "images [examples, height, width, 1 or 3]", x.shape, fix))
    if len(y) != len(x):
        raise ValueError(
            message("y", f"one label for each of {len(x)} images: shape ({len(x)}, ...)", y.shape)
        )
    images = np.repeat(_uint8(x), 3, axis=-1) if x.shape[-1] == 1 else _uint8(x)
    return (images, y) if len(pair) == 2 else (images, y, check_weights(pair[2], len(x)))


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
