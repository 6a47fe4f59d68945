"""Argument checks with one message form: what was expected, what was received, how to fix it.

Every function returns the checked value, so a constructor can check and store in one line::

    self.sync_period = check_integer("sync_period", sync_period, minimum=1)
"""

import math
import numbers
from collections.abc import Iterable
from typing import Any

_KERAS_2 = ("tf_keras.", "tensorflow.python.keras.")


def message(name: str, expected: str, value: Any, fix: str = "") -> str:
    """The text of every argument error: `name` must be ... Received: name=... Fix."""
    shown = f"{type(value).__name__} of shape {value.shape}" if _is_array(value) else repr(value)
    text = f"`{name}` must be {expected}. Received: {name}={shown}."
    return f"{text} {fix}" if fix else text


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and getattr(value, "ndim", 0) != 0


def check_number(
    name: str,
    value: Any,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    open_minimum: bool = False,
    open_maximum: bool = False,
    fix: str = "",
) -> float:
    """A finite real number inside the interval, as a float. NaN, infinities and bools are refused."""
    expected = "a number" + interval(minimum, maximum, open_minimum, open_maximum)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(message(name, expected, value, fix))
    number = float(value)
    above = number > minimum if open_minimum else number >= minimum
    below = number < maximum if open_maximum else number <= maximum
    if not (math.isfinite(number) and above and below):
        raise ValueError(message(name, expected, value, fix))
    return number


def check_integer(
    name: str, value: Any, *, minimum: int | None = None, maximum: int | None = None, fix: str = ""
) -> int:
    """An integer inside the closed interval. Bools and floats (also 2.0) are refused."""
    bounds = [f">= {minimum}"] * (minimum is not None) + [f"<= {maximum}"] * (maximum is not None)
    expected = " ".join(["an integer", " and ".join(bounds)]).strip()
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(message(name, expected, value, fix))
    if (minimum is not None and int(value) < minimum) or (maximum is not None and int(value) > maximum):
        raise ValueError(message(name, expected, value, fix))
    return int(value)


def check_choice(name: str, value: Any, choices: Iterable[Any], fix: str = "") -> Any:
    """One of the given values."""
    options = tuple(choices)
    if _is_array(value) or value not in options:  # an array has no truth value for `in`
        expected = "one of " + ", ".join(repr(option) for option in options)
        raise ValueError(message(name, expected, value, fix))
    return value


def check_instance(name: str, value: Any, kinds: type | tuple[type, ...], fix: str = "") -> Any:
    """An instance of the given class or of one of the given classes."""
    if not isinstance(value, kinds):
        classes = kinds if isinstance(kinds, tuple) else (kinds,)
        expected = "an instance of " + " or ".join(kind.__name__ for kind in classes)
        received = f"{name} of type {type(value).__name__}"
        text = f"`{name}` must be {expected}. Received: {received}."
        fix = fix or keras_2_fix(value)
        raise TypeError(f"{text} {fix}" if fix else text)
    return value


def keras_2_fix(value: Any) -> str:
    """The way out for an object of Keras 2, whose classes have the same names; "" for any other."""
    modules = [kind.__module__ for kind in type(value).__mro__ if kind.__module__.startswith(_KERAS_2)]
    if not modules:
        return ""
    return f"It belongs to Keras 2 ({modules[0]}). Make it with `keras` (Keras 3), not with `tf_keras`."


def interval(
    minimum: float = -math.inf,
    maximum: float = math.inf,
    open_minimum: bool = False,
    open_maximum: bool = False,
) -> str:
    """The bounds of a number in words, with a space in front: " >= 0", " in [0, 1)"; "" without bounds."""
    if math.isinf(minimum) and math.isinf(maximum):
        return ""
    if math.isinf(maximum):
        return f" {'>' if open_minimum else '>='} {minimum:g}"
    if math.isinf(minimum):
        return f" {'<' if open_maximum else '<='} {maximum:g}"
    return f" in {'(' if open_minimum else '['}{minimum:g}, {maximum:g}{')' if open_maximum else ']'}"
