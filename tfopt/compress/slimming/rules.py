"""What each kind of layer does with the numbers of its channels. An unknown layer fixes those it reads."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import keras
import numpy as np

from tfopt.compress._graph import Call, Ref

if TYPE_CHECKING:
    from tfopt.compress.slimming.channels import Channels, Numbers

L = keras.layers
A = keras.activations
Rule: TypeAlias = "Callable[[Channels, Call], Numbers | None]"

ELEMENTWISE = (
    *(A.linear, A.relu, A.relu6, A.leaky_relu, A.elu, A.selu, A.celu, A.gelu, A.silu, A.mish),
    *(A.sigmoid, A.hard_sigmoid, A.hard_silu, A.tanh, A.hard_tanh, A.softplus, A.softsign, A.exponential),
)
CONVOLUTIONS = (L.Conv1D, L.Conv2D, L.Conv3D)
DEPTHWISE = (L.DepthwiseConv1D, L.DepthwiseConv2D)
SEPARABLE = (L.SeparableConv1D, L.SeparableConv2D)
PASSING = (
    *(L.Dropout, L.SpatialDropout1D, L.SpatialDropout2D, L.GaussianNoise, L.GaussianDropout, L.Identity),
    *(L.ReLU, L.LeakyReLU, L.ELU, L.UpSampling1D, L.UpSampling2D, L.Resizing),
    *(L.ZeroPadding1D, L.ZeroPadding2D, L.Cropping1D, L.Cropping2D),
    *(L.MaxPooling1D, L.MaxPooling2D, L.AveragePooling1D, L.AveragePooling2D),
    *(L.GlobalMaxPooling1D, L.GlobalMaxPooling2D, L.GlobalAveragePooling1D, L.GlobalAveragePooling2D),
    *(L.RandomFlip, L.RandomRotation, L.RandomZoom, L.RandomTranslation, L.RandomCrop),
)
MERGING = (L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum)
MERGING_OPERATIONS = ("Add", "Subtract", "Multiply", "TrueDivide", "Maximum", "Minimum")
PASSING_OPERATIONS = (
    "Relu",
    "Relu6",
    "LeakyRelu",
    "Sigmoid",
    "HardSigmoid",
    "Silu",
    "HardSilu",
    "Tanh",
    "Gelu",
)


def weights(call: Call) -> list:
    """The weights of a call's layer."""
    return call.operation.weights if isinstance(call.operation, L.Layer) else []


def rule(call: Call) -> Rule:
    """`rule(channels, call)` returns the numbers of the output's channels, or None: not known."""
    operation, name = call.operation, type(call.operation).__name__
    if not isinstance(operation, L.Layer):
        if name == "Concatenate":
            return _concatenate
        return _merge if name in MERGING_OPERATIONS else _pass if name in PASSING_OPERATIONS else _unknown
    if getattr(operation, "data_format", "channels_last") not in ("channels_last", None):
        return _unknown
    for kinds, found in _RULES:
        if type(operation) in kinds:
            return found
    return _unknown


def _unknown(channels: "Channels", call: Call) -> "Numbers | None":
    return None


def _pass(channels: "Channels", call: Call) -> "Numbers | None":
    return channels.of[call.inputs[0]] if len(call.inputs) == 1 else None


def _activation(channels: "Channels", call: Call) -> "Numbers | None":
    return _pass(channels, call) if call.operation.activation in ELEMENTWISE else None


def _rescaling(channels: "Channels", call: Call) -> "Numbers | None":
    scalars = np.ndim(call.operation.scale) == np.ndim(call.operation.offset) == 0
    return _pass(channels, call) if scalars else None


def _dense(channels: "Channels", call: Call) -> "Numbers | None":
    """A dense layer or a convolution: new channels."""
    layer, inputs = call.operation, channels.of[call.inputs[0]]
    if getattr(layer, "groups", 1) != 1:
        return None
    rank, outputs = layer.kernel.ndim, channels.fresh(layer.kernel.shape[-1])
    channels.slices(layer.kernel, {rank - 2: inputs, rank - 1: outputs}, rank - 1)
    return _biased(channels, layer, outputs)


def _depthwise(channels: "Channels", call: Call) -> "Numbers | None":
    """The channels that come in, each `depth_multiplier` times."""
    layer, inputs = call.operation, channels.of[call.inputs[0]]
    channels.slices(layer.kernel, {layer.kernel.ndim - 2: inputs}, made=layer.kernel.ndim - 2)
    return _biased(channels, layer, np.repeat(inputs, layer.depth_multiplier))


def _separable(channels: "Channels", call: Call) -> "Numbers | None":
    layer, inputs = call.operation, channels.of[call.inputs[0]]
    rank = layer.pointwise_kernel.ndim
    between: Numbers = np.repeat(inputs, layer.depth_multiplier)
    outputs = channels.fresh(layer.filters)
    channels.slices(layer.depthwise_kernel, {rank - 2: inputs})
    channels.slices(layer.pointwise_kernel, {rank - 2: between, rank - 1: outputs}, rank - 1)
    return _biased(channels, layer, outputs)


def _biased(channels: "Channels", layer: Any, outputs: "Numbers") -> "Numbers":
    if layer.use_bias:
        channels.slices(layer.bias, {0: outputs}, 0)
    return outputs if layer.activation in ELEMENTWISE else channels.fix(outputs)


def _batch_normalization(channels: "Channels", call: Call) -> "Numbers | None":
    layer, inputs = call.operation, channels.of[call.inputs[0]]
    if layer.axis not in (-1, len(channels.graph.tensor(call.inputs[0]).shape) - 1):
        return None
    for weight in layer.weights:
        channels.slices(weight, {0: inputs}, 0)
    producer = channels.graph.producer.get(call.inputs[0])
    if producer is not None and len(channels.graph.consumers[call.inputs[0]]) == 1:
        for weight in weights(producer):
            if id(weight) in channels.made and len(weight.shape) >= 2:
                channels.folded[id(weight)] = layer
    return inputs


def _prelu(channels: "Channels", call: Call) -> "Numbers | None":
    inputs, alpha = channels.of[call.inputs[0]], call.operation.alpha
    channels.slices(alpha, {alpha.ndim - 1: inputs})
    return inputs


def _merge(channels: "Channels", call: Call) -> "Numbers | None":
    """Sums, products and the like; a part of one channel is spread over all."""
    leaves = keras.tree.flatten((call.args, call.kwargs))
    constants = [leaf for leaf in leaves if not isinstance(leaf, Ref)]
    parts = [channels.of[index] for index in call.inputs]
    width = max(len(part) for part in parts)
    if any(len(part) not in (1, width) for part in parts) or any(np.ndim(c) for c in constants):
        return None
    whole = [part for part in parts if len(part) == width]
    for part in parts:
        channels.join(whole[0], part) if len(part) == width else channels.fix(part)
    return whole[0]


def _concatenate(channels: "Channels", call: Call) -> "Numbers | None":
    parts = [channels.of[index] for index in call.inputs]
    if call.operation.axis in (-1, len(channels.graph.tensor(call.inputs[0]).shape) - 1):
        return np.concatenate(parts)
    return _merge(channels, call)


def _reshape(channels: "Channels", call: Call) -> "Numbers | None":
    """Flatten and Reshape: the position of every channel in the new shape."""
    before = channels.graph.tensor(call.inputs[0]).shape[1:]
    after = channels.graph.tensor(call.outputs[0]).shape[1:]
    if None in before or None in after:
        return None
    moved = np.broadcast_to(channels.of[call.inputs[0]], before).reshape(-1, after[-1])
    return moved[0] if (moved == moved[0]).all() else None


_RULES: list[tuple[tuple, Rule]] = [
    ((*CONVOLUTIONS, L.Dense), _dense),
    (DEPTHWISE, _depthwise),
    (SEPARABLE, _separable),
    ((L.BatchNormalization,), _batch_normalization),
    ((L.Activation,), _activation),
    ((L.Rescaling,), _rescaling),
    ((L.PReLU,), _prelu),
    (MERGING, _merge),
    ((L.Concatenate,), _concatenate),
    ((L.Flatten, L.Reshape), _reshape),
    (PASSING, _pass),
]
