"""Which array of a batch belongs to which input of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np


@final
@dataclass(frozen=True)
class Port:
    """One input or output: its name, the shape of one sample (None where open) and the data type."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name!r} {self.shape}"


def matched(element: Any, inputs: Sequence[Port]) -> list[np.ndarray] | None:
    """The arrays of one element for each input, with a batch dimension, or None if they do not fit.

    An element is inputs, (inputs,), (inputs, labels) or (inputs, labels, weights). Names decide for
    dictionaries; the order for lists, unless only another order fits the shapes.
    """
    if isinstance(element, tuple):
        if len(element) == len(inputs) > 1 and (found := _fitted(list(element), inputs)) is not None:
            return found
        return matched(element[0], inputs) if element else None
    if isinstance(element, dict):
        named = [element[port.name] for port in inputs if port.name in element]
        if len(named) == len(inputs):
            return _fitted(named, inputs, ordered=True)
        return _fitted(list(element.values()), inputs)
    return _fitted(list(element) if isinstance(element, list) else [element], inputs)


def _fitted(values: list[Any], inputs: Sequence[Port], ordered: bool = False) -> list[np.ndarray] | None:
    if len(values) != len(inputs):
        return None
    try:
        arrays = [np.asarray(value) for value in values]
    except (ValueError, TypeError):
        return None
    if any(array.dtype.kind not in "fiub" for array in arrays):
        return None
    found = _in_batches(arrays, inputs)
    if found is None and len(arrays) == 2 and not ordered:
        return _in_batches(arrays[::-1], inputs)  # a file may hold its inputs in another order
    return found


def _in_batches(arrays: list[np.ndarray], inputs: Sequence[Port]) -> list[np.ndarray] | None:
    """All as batches, or all as single samples to which a batch dimension is added."""
    for added in (0, 1, -1):
        shaped = [_with_batch(array, added) for array in arrays]
        fits = all(a is not None and _fits(a.shape[1:], port.shape) for a, port in zip(shaped, inputs))
        if fits and len({len(a) for a in shaped if a is not None}) == 1:
            return [a.astype(port.dtype, copy=False) for a, port in zip(shaped, inputs) if a is not None]
    return None


def _with_batch(array: np.ndarray, added: int) -> np.ndarray | None:
    """The array, with a batch dimension added, or without the dimension of 1 that tf.data makes of a list."""
    if added == 1:
        return array[None]
    if added == -1:
        return array[0] if array.ndim > 1 and array.shape[0] == 1 else None
    return array if array.ndim else None


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(want in (None, got) for want, got in zip(wanted, shape))
