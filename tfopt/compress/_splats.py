"""Biases whose values are all equal: the converter gives each of them the step of the first channel."""

import contextlib
from collections.abc import Iterator

import keras
import numpy as np

NUDGE = 2.0**-16  # of the first value: no step of an int8 or int16 file is as small


@contextlib.contextmanager
def uneven_vectors(model: keras.Model) -> Iterator[None]:
    """Weights of rank 1 whose values are all equal have a first value that differs, while it is open.

    The converter keeps a constant of equal values as one number. Where the channels of a kernel have scales
    of their own, it divides that number by the first channel's, and the biases of all others are wrong: a
    trained network has such a bias where it was made by `Constant`, as for detectors, or never trained.
    """
    changed = []
    for variable in model.weights:
        value = np.asarray(variable.numpy()) if len(variable.shape) == 1 else np.zeros(1)
        if value.size > 1 and value.dtype.kind == "f" and value[0] != 0 and (value == value[0]).all():
            changed.append((variable, value))
    try:
        for variable, value in changed:
            variable.assign(np.concatenate([value[:1] * (1.0 + NUDGE), value[1:]]))
        yield
    finally:
        for variable, value in changed:
            variable.assign(value)
