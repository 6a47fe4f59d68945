"""The check of class counts."""

from collections.abc import Sequence

import numpy as np

from tfopt._checks import message


def check_counts(counts: Sequence[float]) -> np.ndarray:
    """float64 [classes], two or more, each at least 1."""
    numbers: np.ndarray = np.asarray(counts, np.float64)
    if numbers.ndim != 1 or len(numbers) < 2 or not ((numbers >= 1) & np.isfinite(numbers)).all():
        raise ValueError(message("counts", "at least 1 for each of two or more classes", counts))
    return numbers
