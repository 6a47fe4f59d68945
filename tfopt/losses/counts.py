"""The checks of what is given for each class."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfopt._checks import message


def check_counts(counts: Sequence[float]) -> np.ndarray:
    """float64 [classes], two or more, each at least 1."""
    numbers = _numbers(counts)
    if numbers is None or not (numbers >= 1).all():
        raise ValueError(message("counts", "at least 1 for each of two or more classes", counts))
    return numbers


def check_weights(name: str, weights: Sequence[float]) -> list[float]:
    """Finite numbers above 0, two or more."""
    numbers = _numbers(weights)
    if numbers is None or not (numbers > 0).all():
        raise ValueError(message(name, "a weight > 0 for each of two or more classes", weights))
    return numbers.tolist()


def _numbers(values: Any) -> np.ndarray | None:
    numbers: np.ndarray = np.asarray(values)
    known = numbers.dtype.kind in "iuf" and numbers.ndim == 1 and len(numbers) > 1
    return numbers.astype(np.float64) if known and np.isfinite(numbers).all() else None
