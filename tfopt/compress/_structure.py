"""Lists, tuples and dictionaries of arrays, without importing Keras: files are run where it is not needed."""

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any


def leaves(structure: Any) -> list[Any]:
    """The arrays in a structure, in order."""
    if isinstance(structure, dict):
        return [leaf for value in structure.values() for leaf in leaves(value)]
    if isinstance(structure, list | tuple):
        return [leaf for value in structure for leaf in leaves(value)]
    return [] if structure is None else [structure]


def mapped(function: Callable[[Any], Any], structure: Any) -> Any:
    """The same structure with `function(leaf)` for each array; None stays."""
    if isinstance(structure, dict):
        return {key: mapped(function, value) for key, value in structure.items()}
    if isinstance(structure, list | tuple):
        return type(structure)([mapped(function, value) for value in structure])
    return None if structure is None else function(structure)


def is_array(value: Any) -> bool:
    """Whether it is an array or tensor of any framework."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def is_dataset(value: Any) -> bool:
    """Whether it is a tf.data.Dataset; nobody has one without having imported TensorFlow."""
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(value, tensorflow.data.Dataset)


def is_py_dataset(value: Any) -> bool:
    """Whether it is a keras.utils.PyDataset."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(value, keras.utils.PyDataset)


def batches_of(dataset: Any) -> Iterator[Any]:
    """The batches of a PyDataset; one without a number of batches does not end."""
    count = dataset.num_batches
    return (dataset[i] for i in (itertools.count() if count is None else range(count)))
