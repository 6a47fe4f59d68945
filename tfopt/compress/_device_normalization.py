"""Layer and group normalization in operations that TFLite has in int8 and int16.

Keras's own trace to SQUARED_DIFFERENCE, which has no 16-bit kernel, and NEG, which has no integer kernel.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras

L = keras.layers


def integer_form(layer: keras.Layer) -> Callable[[Any], Any] | None:
    """The layer's `call` in other operations with the same result; None for any other layer."""
    if type(layer) is L.LayerNormalization and not getattr(layer, "rms_scaling", False):
        return lambda inputs: _layer_normalization(layer, inputs)
    if type(layer) is L.GroupNormalization and layer.axis in (-1, layer.input_spec.ndim - 1):
        return lambda inputs: _group_normalization(layer, inputs)
    return None


def _layer_normalization(layer: Any, inputs: Any) -> Any:
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    axes = [axis % len(inputs.shape) for axis in axes]
    shape = [size if axis in axes else 1 for axis, size in enumerate(inputs.shape)]
    return _scaled(_standardized(inputs, axes, layer.epsilon), layer, shape)


def _group_normalization(layer: Any, inputs: Any) -> Any:
    """Positions in one dimension: integer kernels of MEAN take four dimensions."""
    *places, channels = inputs.shape[1:]
    if None in places:
        return type(layer).call(layer, inputs)
    positions = 1
    for size in places:
        positions *= size
    batch = -1 if inputs.shape[0] is None else inputs.shape[0]
    groups = keras.ops.reshape(inputs, (batch, positions, layer.groups, channels // layer.groups))
    result = keras.ops.reshape(_standardized(groups, [1, 3], layer.epsilon), (batch, *inputs.shape[1:]))
    return _scaled(result, layer, [1] * len(places) + [1, channels])


def _standardized(inputs: Any, axes: Sequence[int], epsilon: float) -> Any:
    centered = inputs - keras.ops.mean(inputs, axis=axes, keepdims=True)
    variance = keras.ops.mean(centered * centered, axis=axes, keepdims=True)
    return centered * keras.ops.rsqrt(variance + epsilon)


def _scaled(values: Any, layer: Any, shape: Sequence[int]) -> Any:
    if layer.gamma is not None:
        values = values * keras.ops.reshape(layer.gamma, shape)
    return values if layer.beta is None else values + keras.ops.reshape(layer.beta, shape)
