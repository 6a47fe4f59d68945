"""Layers and operations without a rule of their own, written with those that have one.

A piece computes what the layer does, up to rounding, with layers and operations that TFLite has
integer kernels for. The one named "main" takes the name of the layer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

import keras
import numpy as np

from tfopt.compress._device_activations import log_sum_exp
from tfopt.compress.quantization import attention
from tfopt.compress.quantization.affine import ScaleShift
from tfopt.compress.quantization.operations import InverseRoot

L = keras.layers
ops = keras.ops


@final
@dataclass(frozen=True)
class Piece:
    """What a layer does.

    Args:
        call: Makes the outputs from the layer's arguments; None if it cannot for these.
        weights: The values of the new layers' weights.
    """

    call: Callable[..., Any]
    weights: dict[keras.Layer, list[np.ndarray]] = field(default_factory=dict)


def separable(layer: Any) -> Piece | None:
    """SeparableConv1D and SeparableConv2D: a depthwise convolution and one of size 1."""
    one = isinstance(layer, L.SeparableConv1D)
    depthwise_kind, kind = (L.DepthwiseConv1D, L.Conv1D) if one else (L.DepthwiseConv2D, L.Conv2D)
    strides = layer.strides[0] if one else layer.strides
    padding, rate = layer.padding, layer.dilation_rate[0] if one else layer.dilation_rate
    if layer.data_format != "channels_last" or padding == "causal":
        return None
    depthwise = depthwise_kind(
        layer.kernel_size,
        strides,
        padding,
        layer.depth_multiplier,
        dilation_rate=rate,
        use_bias=False,
        dtype=layer.dtype_policy,
        name="depthwise",
    )
    pointwise = kind(
        layer.filters,
        1,
        use_bias=layer.use_bias,
        activation=layer.activation,
        dtype=layer.dtype_policy,
        name="main",
    )
    first, *others = layer.get_weights()
    return Piece(lambda x: pointwise(depthwise(x)), {depthwise: [first], pointwise: others})


def transposed(layer: keras.layers.Conv1DTranspose) -> Piece | None:
    """Conv1DTranspose: that of two dimensions, of which the first has size 1."""
    if layer.data_format != "channels_last" or layer.output_padding is not None:
        return None
    wide = L.Conv2DTranspose(
        layer.filters,
        (1, *layer.kernel_size),
        (1, *layer.strides),
        layer.padding,
        use_bias=layer.use_bias,
        activation=layer.activation,
        dilation_rate=(1, *layer.dilation_rate),
        dtype=layer.dtype_policy,
        name="main",
    )
    kernel, *bias = layer.get_weights()
    return Piece(lambda x: ops.squeeze(wide(ops.expand_dims(x, 1)), 1), {wide: [kernel[None], *bias]})


def einsum_dense(layer: keras.layers.EinsumDense) -> Piece | None:
    """EinsumDense over the last axes of its input: a dense layer between two reshapes."""
    left, _, output = layer.equation.replace("...", "").replace("->", ",").partition(",")
    kernel, _, output = output.partition(",")
    summed = [axis for axis in kernel if axis in left]
    count, made = len(summed), kernel[len(summed) :]
    fits = left[-count:] == kernel[:count] and output == left[:-count] + made and "..." not in layer.equation
    bias = layer.bias is None or tuple(layer.bias.shape) == tuple(layer.kernel.shape[count:])
    if not (count and made and fits and bias) or layer.lora_enabled:
        return None
    values = layer.get_weights()
    inputs, outputs = (int(np.prod(values[0].shape[part])) for part in (slice(count), slice(count, None)))
    dense = L.Dense(
        outputs,
        use_bias=layer.bias is not None,
        activation=layer.activation,
        dtype=layer.dtype_policy,
        name="main",
    )

    def call(x: Any) -> Any:
        places = x.shape[1 : len(x.shape) - count]
        if None in places:  # a reshape needs all sizes but one
            return None
        flat = ops.reshape(x, (-1, *places, inputs)) if count > 1 else x
        y = dense(flat)
        return ops.reshape(y, (-1, *places, *values[0].shape[count:])) if len(made) > 1 else y

    return Piece(
        call, {dense: [values[0].reshape(inputs, outputs), *(value.reshape(-1) for value in values[1:])]}
    )


def time_distributed(layer: keras.layers.TimeDistributed) -> Piece | None:
    """TimeDistributed: the layer on all steps of all samples at once."""
    inner = layer.layer
    if isinstance(inner, L.RNN) or layer.compute_dtype != inner.compute_dtype:
        return None
    copy = type(inner).from_config({**inner.get_config(), "name": "main"})

    def call(x: Any) -> Any:
        steps = x.shape[1]
        y = copy(ops.reshape(x, (-1, *x.shape[2:])))
        return ops.reshape(y, (-1, steps, *y.shape[1:]))

    return Piece(call, {copy: inner.get_weights()}) if inner.weights else Piece(call)


def layer_normalization(layer: Any) -> Piece | None:
    """LayerNormalization and RMSNormalization over the last axis."""
    if getattr(layer, "rms_scaling", False):
        return None
    rms = isinstance(layer, L.RMSNormalization)
    values = layer.get_weights()
    scale = values.pop(0) if rms or layer.scale else None
    shift = values.pop(0) if values else None
    return _normalized(layer, [-1], not rms, scale, shift)


def group_normalization(layer: keras.layers.GroupNormalization) -> Piece:
    """GroupNormalization over the last axis."""
    values = layer.get_weights()
    scale = values.pop(0) if layer.scale else None
    shift = values.pop(0) if values else None
    return _normalized(layer, [1, 3], True, scale, shift, groups=layer.groups)


def _normalized(
    layer: Any, axes: list[int], centered: bool, scale: Any, shift: Any, groups: int | None = None
) -> Piece:
    root = InverseRoot(name="root")
    after = ScaleShift(use_scale=scale is not None, use_shift=shift is not None, name="main")

    def call(x: Any) -> Any:
        shape = x.shape[1:]
        axis = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
        if list(axis) not in ([-1], [len(shape)]) or (groups is not None and None in shape):
            return None
        if groups is not None:
            count = groups if groups > 0 else shape[-1]
            x = ops.reshape(x, (-1, int(np.prod(shape[:-1])), count, shape[-1] // count))
        if centered:
            x = ops.subtract(x, ops.mean(x, axes, keepdims=True))
        power = ops.mean(ops.multiply(x, x), axes, keepdims=True)
        y = ops.multiply(x, root(ops.add(power, layer.epsilon)))
        return after(y if groups is None else ops.reshape(y, (-1, *shape)))

    return Piece(call, {after: [value for value in (scale, shift) if value is not None]})


def unit_normalization(layer: keras.layers.UnitNormalization) -> Piece:
    """UnitNormalization: the input divided by its length."""
    root = InverseRoot(name="root")
    axes = layer.axis

    def call(x: Any) -> Any:
        return ops.multiply(x, root(ops.add(ops.sum(ops.multiply(x, x), axes, keepdims=True), 1e-12)))

    return Piece(call)


def average(layer: keras.layers.Average) -> Piece:
    """Average: a sum and a product; TFLite has no integer division."""
    add = L.Add(name="sum")
    return Piece(lambda xs: ops.multiply(add(xs), 1.0 / len(xs)))


def added(layer: keras.layers.Add) -> Piece:
    """Add of three and more: TFLite adds two, and each sum is rounded."""

    def call(xs: Any) -> Any:
        if len(xs) < 3:
            return None
        total, *others = xs
        for number, x in enumerate(others, start=1):
            total = L.Add(name="main" if number == len(others) else f"sum_{number}")([total, x])
        return total

    return Piece(call)


LAYERS: dict[type, Callable[[Any], Piece | None]] = {
    L.SeparableConv1D: separable,
    L.SeparableConv2D: separable,
    L.Conv1DTranspose: transposed,
    L.EinsumDense: einsum_dense,
    L.TimeDistributed: time_distributed,
    L.LayerNormalization: layer_normalization,
    L.RMSNormalization: layer_normalization,
    L.GroupNormalization: group_normalization,
    L.UnitNormalization: unit_normalization,
    L.Average: average,
    L.Softmax: lambda layer: Piece(attention.masked_softmax(layer)),
    L.Add: added,
}


def _divided(operation: Any, x: Any, divisor: Any) -> Any:
    if isinstance(divisor, keras.KerasTensor | keras.Variable) or not isinstance(x, keras.KerasTensor):
        return None
    return ops.multiply(x, 1.0 / np.asarray(divisor, "float32") if np.ndim(divisor) else 1.0 / float(divisor))


def _power(operation: Any, x: Any, exponent: Any) -> Any:
    number = isinstance(exponent, int | float) and isinstance(x, keras.KerasTensor)
    return ops.multiply(x, x) if number and exponent == 2 else None


OPERATIONS: dict[str, Callable[..., Any]] = {
    "DotProductAttention": attention.dot_product,
    "Subtract": attention.shifted,
    "Where": attention.replaced,
    "TrueDivide": _divided,
    "Divide": _divided,
    "Logsumexp": log_sum_exp,
    "Negative": lambda operation, x: ops.multiply(x, -1.0),
    "Square": lambda operation, x: ops.multiply(x, x),
    "Power": _power,
}
