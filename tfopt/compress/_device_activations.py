"""ELU and SELU in operations with integer kernels.

The converter leaves ELU in float. It writes SELU with an exponential of all inputs: that of the largest one
sets its scale, and the values that matter, below 1, get a few steps.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

_SCALE, _ALPHA = 1.0507009873554805, 1.6732632423543772  # of SELU, as in keras.activations


def integer_activation(layer: keras.Layer) -> tuple[str, Callable[[Any], Any]] | None:
    """Name of the layer's attribute and what takes its place; None if nothing has to."""
    if type(layer) is keras.layers.ELU:
        return "call", lambda inputs: _exponential(inputs, 1.0, float(layer.alpha))
    found = getattr(layer, "activation", None)
    if found is keras.activations.elu:
        return "activation", lambda inputs: _exponential(inputs, 1.0, 1.0)
    if found is keras.activations.selu:
        return "activation", lambda inputs: _exponential(inputs, _SCALE, _ALPHA)
    return None


def _exponential(inputs: Any, scale: float, alpha: float) -> Any:
    """scale * (x if x > 0 else alpha * (exp(x) - 1))."""
    positive = ops.relu(inputs)
    # Not by a minimum: in int8 that shares one scale with its constant, 0, which has no range.
    return scale * positive + scale * alpha * (ops.exp(inputs - positive) - 1.0)
