"""Batches out of the forms in which data comes: a tf.data.Dataset, arrays, or (inputs, labels)."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfopt.compress._matching import Port
from tfopt.compress._structure import batches_of, is_array, is_dataset, is_py_dataset, leaves, mapped

BATCH = 32


def pairs(data: Any, inputs: Sequence[Port] = ()) -> Iterator[tuple[Any, Any]]:
    """Yields (inputs, labels) of `triples`; sample weights are left out."""
    for values, labels, _ in triples(data, inputs):
        yield values, labels


def triples(data: Any, inputs: Sequence[Port] = ()) -> Iterator[tuple[Any, Any, Any]]:
    """Yields (inputs, labels as the loss takes them, sample weights), one batch at a time; None for the last
    two where the data has none.

    Both are arrays, or tuples, lists and dictionaries of arrays for models with several inputs or outputs.

    Args:
        data: A dataset of (inputs, labels[, weights]) or of inputs, an array of inputs, or (inputs,
            labels[, weights]).
        inputs: The inputs of the model, if known: a dataset of single samples is then batched.

    Raises:
        TypeError: If it is none of these forms.
    """
    if is_dataset(data):
        for element in data if _is_batched(data.element_spec, inputs) else data.batch(BATCH):
            yield _split(mapped(np.asarray, element))
        return
    if is_py_dataset(data):
        yield from map(_split, batches_of(data))
        return
    is_several = isinstance(data, tuple) and len(data) in (2, 3)
    values, labels, weights = _split(data) if is_several else (data, None, None)
    arrays = leaves((values, labels))
    if not arrays or not all(is_array(leaf) and len(leaf.shape) for leaf in arrays):
        raise TypeError(
            "`data` must be a batched tf.data.Dataset, an array, or (inputs, labels), and not empty. "
            f"Received: data of type {type(data).__name__}."
        )
    if not len(arrays[0]):
        raise TypeError("`data` must not be empty. Received: an array without rows.")
    for start in range(0, len(arrays[0]), BATCH):
        yield _rows(values, start), _rows(labels, start), _rows(weights, start)


def _rows(structure: Any, start: int) -> Any:
    return mapped(lambda leaf: np.asarray(leaf[start : start + BATCH]), structure)


def _split(element: Any) -> tuple[Any, Any, Any]:
    """(inputs, labels, weights) of an element."""
    if isinstance(element, tuple):
        values, labels, weights, *_ = (*element, None, None)
        return values, labels, weights
    return element, None, None


def _is_batched(spec: Any, inputs: Sequence[Port]) -> bool:
    """False if the tensors of an element have the rank of one sample."""
    tensors = leaves(spec[0] if isinstance(spec, tuple) else spec)
    ranks = [tensor.shape.rank for tensor in tensors]
    return not inputs or len(ranks) != len(inputs) or ranks != [len(port.shape) for port in inputs]
