"""Samples of a model's inputs out of whatever form people have them in."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tfopt.compress._matching import Port, matched
from tfopt.compress._structure import batches_of, is_array, is_dataset, is_py_dataset, mapped

FORMS = (
    "a batched tf.data.Dataset, an array, a list or dictionary of arrays (one for each input), "
    "(inputs, labels), or a generator of batches, and not empty"
)


def samples(
    data: Any, inputs: Sequence[Port], count: int, name: str = "representative_data"
) -> list[np.ndarray]:
    """The first `count` samples of each input, or all if there are fewer.

    Takes datasets and generators of batches or of single samples, with labels or without; arrays, lists and
    dictionaries of arrays; and the generator function of the TFLite guide, which yields lists.

    Args:
        data: The data in any of these forms.
        inputs: The inputs of the model.
        count: How many samples are needed.
        name: The argument's name, for errors.

    Raises:
        TypeError: If the data has none of these forms.
        ValueError: If there is no data, or none that fits the inputs.
    """
    taken: list[list[np.ndarray]] = []
    total = 0
    for element in _elements(data, inputs):
        arrays = matched(element, inputs)
        if arrays is None:
            raise ValueError(_unfit(name, element, inputs))
        taken.append(arrays)
        total += len(arrays[0])
        if total >= count:
            break
    if not taken or not total:
        raise ValueError(f"`{name}` must have at least one batch. Received an empty {type(data).__name__}.")
    if len({tuple(a.shape[1:] for a in arrays) for arrays in taken}) > 1:
        raise ValueError(
            f"`{name}` must have inputs of one size. Received sizes that differ between batches."
        )
    return [np.concatenate([arrays[i] for arrays in taken])[:count] for i in range(len(inputs))]


def _elements(data: Any, inputs: Sequence[Port]) -> Iterator[Any]:
    if is_dataset(data):
        return iter(data)
    if is_py_dataset(data):
        return batches_of(data)
    if is_array(data) or isinstance(data, dict):
        return iter([data])
    if isinstance(data, list | tuple):
        whole = matched(data, inputs) if data else None
        if whole is not None:
            return iter([data])
        if isinstance(data, tuple) or not data or not all(_is_data(value) for value in data):
            if isinstance(data, tuple) and data and _is_data(data[0]):
                return iter([data])  # it does not fit, and the error says so
            raise TypeError(_no_form(data))
        return iter(data)
    made = data() if callable(data) else data
    if isinstance(made, Iterable) and not isinstance(made, str | bytes):
        return iter(made)
    raise TypeError(_no_form(data))


def _is_data(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(_is_data(each) for each in value)
    return is_array(value) or isinstance(value, dict)


def _no_form(data: Any) -> str:
    return f"`data` must be {FORMS}. Received: data of type {type(data).__name__}."


def _unfit(name: str, element: Any, inputs: Sequence[Port]) -> str:
    got = mapped(lambda leaf: tuple(leaf.shape) if is_array(leaf) else type(leaf).__name__, element)
    wanted = ", ".join(str(port) for port in inputs)
    return f"`{name}` must be inputs of shape {wanted}, in batches. Received: {got}."


def first_inputs(data: Any) -> list[np.ndarray] | None:
    """The inputs in the first element, for a model that does not say what it takes; None without data."""
    if data is None:
        return None
    element = next(_elements(data, []), None)
    while isinstance(element, tuple) and element:
        element = element[0]
    values = list(element.values()) if isinstance(element, dict) else element
    values = values if isinstance(values, list) else [values]
    arrays = [np.asarray(value) for value in values]
    return [array.astype("int32" if array.dtype.kind == "i" else "float32") for array in arrays]
