"""Batches out of the forms in which data comes: a batched tf.data.Dataset, arrays, or (inputs, labels)."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

BATCH = 32


def batches(data: Any) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yields (inputs, integer labels or None), one batch at a time, for models with one input and output.

    Args:
        data: A batched dataset of (inputs, labels) or of inputs, an array of inputs, or (inputs, labels).
            Labels are integers or one-hot rows.

    Raises:
        TypeError: none of these forms.
    """
    for inputs, labels in pairs(data):
        if not isinstance(inputs, np.ndarray) or not isinstance(labels, np.ndarray | None):
            raise TypeError(
                "`data` must yield inputs or (inputs, labels), each one tensor. Received: inputs of type "
                f"{type(inputs).__name__}, labels of type {type(labels).__name__}."
            )
        yield inputs, _integers(labels)


def pairs(data: Any) -> Iterator[tuple[Any, Any]]:
    """Yields (inputs, labels as the loss takes them, or None), one batch at a time; see `batches`.

    Both are arrays, or tuples, lists and dictionaries of arrays for models with several inputs or outputs.
    """
    if isinstance(data, tf.data.Dataset):
        for element in data:
            inputs, labels = (*element, None)[:2] if isinstance(element, tuple) else (element, None)
            yield _arrays(inputs), None if labels is None else _arrays(labels)
        return
    inputs, labels = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    arrays = [leaf for leaf in keras.tree.flatten((inputs, labels)) if leaf is not None]
    if not arrays or not all(isinstance(leaf, np.ndarray | tf.Tensor) and leaf.ndim for leaf in arrays):
        raise TypeError(
            "`data` must be a batched tf.data.Dataset, an array, or (inputs, labels), and not empty. "
            f"Received: data of type {type(data).__name__}."
        )
    if not len(arrays[0]):
        raise TypeError("`data` must not be empty. Received: an array without rows.")
    for start in range(0, len(arrays[0]), BATCH):
        part = slice(start, start + BATCH)
        yield _arrays(inputs, part), None if labels is None else _arrays(labels, part)


def _arrays(structure: Any, part: Any = ...) -> Any:
    return keras.tree.map_structure(lambda leaf: np.asarray(leaf[part]), structure)


def labelled(data: Any) -> tuple[list[np.ndarray], np.ndarray]:
    """All batches of inputs, and all labels in one array.

    Raises:
        ValueError: no data, or data without labels.
    """
    inputs, labels = [], []
    for batch, truth in batches(data):
        if truth is None:
            raise ValueError("`data` must have labels: a dataset of (inputs, labels) or a pair of arrays.")
        inputs.append(batch)
        labels.append(truth)
    if not inputs:
        raise ValueError("`data` must have at least one batch. Received an empty dataset.")
    return inputs, np.concatenate(labels)


def samples(data: Any, count: int) -> np.ndarray:
    """The first `count` inputs, or all if there are fewer."""
    taken: list[np.ndarray] = []
    for inputs, _ in batches(data):
        taken.append(inputs)
        if sum(len(batch) for batch in taken) >= count:
            break
    if not taken:
        raise ValueError("`data` must have at least one batch. Received an empty dataset.")
    return np.concatenate(taken)[:count]


def classes(outputs: np.ndarray) -> np.ndarray:
    """The most probable class of every sample.

    Raises:
        ValueError: not one row of scores per sample. The largest of a single score would always be the first.
    """
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise ValueError(
            "Accuracy is that of models with one output per class, shape (batch, classes >= 2). "
            f"Received: outputs of shape {outputs.shape}. Measure others with a metric of their own."
        )
    return outputs.argmax(axis=-1)


def _integers(labels: Any) -> np.ndarray | None:
    if labels is None:
        return None
    labels = np.asarray(labels)
    return labels.argmax(axis=-1) if labels.ndim > 1 and labels.shape[-1] > 1 else labels.reshape(-1)
