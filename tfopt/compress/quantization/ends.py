"""What is known of the ends of an input's range behind arithmetic on it, such as `x / 127.5 - 1`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Ends = tuple[float, float]


def moved(ends: Ends | None, operation: str, args: Sequence[Any]) -> Ends | None:
    """The ends of the sum, difference or product of an input and one number; None if they are not known.

    Args:
        ends: Of the input, or None.
        operation: "Add", "Subtract" or "Multiply".
        args: Of the operation: the input and a number, in any order.
    """
    numbers = [float(arg) for arg in args if isinstance(arg, int | float | np.number)]
    if ends is None or len(args) != 2 or len(numbers) != 1:
        return None
    (number,) = numbers
    first_is_number = isinstance(args[0], int | float | np.number)
    if operation == "Multiply":
        low, high = sorted(number * end for end in ends)
    elif operation == "Add":
        low, high = (end + number for end in ends)
    elif first_is_number:
        high, low = (number - end for end in ends)
    else:
        low, high = (end - number for end in ends)
    return low, high


def grid(low: float, high: float) -> dict[str, float]:
    """A range that holds both ends and has zero exactly on one of its 256 levels.

    Without the latter, [-1, 1] puts every pixel halfway between two levels.
    """
    if low >= 0.0 or high <= 0.0:
        return {"minimum": min(low, 0.0), "maximum": max(high, 0.0)}
    step = max(-low / 128, high / 127)
    return {"minimum": -128 * step, "maximum": 127 * step}
