"""Networks of `keras.applications` with random weights, made when a test asks for them."""

from collections.abc import Callable
from typing import Any

import keras


def application(name: str, size: int, **options: Any) -> Callable[[], keras.Model]:
    """A function that makes the network for square images of `size` pixels and five classes."""
    make = vars(keras.applications)[name]
    return lambda: make(weights=None, input_shape=(size, size, 3), classes=5, **options)
