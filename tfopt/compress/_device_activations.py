"""Activations with an exponential in them, in operations whose int8 scales hold what matters.

The converter leaves ELU in float. It writes SELU, CELU, softplus and mish with an exponential of all inputs:
that of the largest one sets its scale, and the values that matter, below 1, get a few steps.
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
    if found in (keras.activations.elu, keras.activations.celu):
        return "activation", lambda inputs: _exponential(inputs, 1.0, 1.0)
    if found is keras.activations.selu:
        return "activation", _selu
    if found is keras.activations.softplus:
        return "activation", _softplus
    if found is keras.activations.mish:
        return "activation", _mish
    return None


def integer_operation(operation: Any) -> Callable[[Any], Any] | None:
    """What takes the place of `call` of an operation such as `keras.ops.elu`; None if nothing has to."""
    alpha = float(getattr(operation, "alpha", 1.0))
    if type(operation).__name__ == "Elu":  # operations have no public classes
        return lambda inputs: _exponential(inputs, 1.0, alpha)
    if type(operation).__name__ == "Celu" and alpha == 1.0:
        return lambda inputs: _exponential(inputs, 1.0, 1.0)
    if type(operation).__name__ == "Logsumexp":
        return lambda inputs: log_sum_exp(operation, inputs)
    return _OPERATIONS.get(type(operation).__name__)


def log_sum_exp(operation: Any, inputs: Any) -> Any:
    """`keras.ops.logsumexp`, which tests for infinity with operations that have no integer kernel."""
    axis = operation.axis
    largest = ops.max(inputs, axis=axis, keepdims=True)
    total = ops.log(ops.sum(ops.exp(inputs - largest), axis=axis, keepdims=True)) + largest
    return total if operation.keepdims else ops.max(total, axis=axis)


def _selu(inputs: Any) -> Any:
    return _exponential(inputs, _SCALE, _ALPHA)


def _mish(inputs: Any) -> Any:
    return inputs * ops.tanh(_softplus(inputs))


def _softplus(inputs: Any) -> Any:
    """log(1 + exp(x)), the exponential at most 1."""
    return ops.relu(inputs) + ops.log(ops.exp(ops.abs(inputs) * -1.0) + 1.0)


def _exponential(inputs: Any, scale: float, alpha: float) -> Any:
    """scale * (x if x > 0 else alpha * (exp(x) - 1))."""
    positive = ops.relu(inputs)
    # Not by a minimum: in int8 that shares one scale with its constant, 0, which has no range.
    return scale * positive + scale * alpha * (ops.exp(inputs - positive) - 1.0)


_OPERATIONS = {"Selu": _selu, "Softplus": _softplus}
