"""What each kind of layer does with the numbers of its channels. An unknown layer fixes those it reads."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import keras
import numpy as np

from tfopt.compress._graph import Call, Ref
from tfopt.compress.slimming import kernel_rules as kernels
from tfopt.compress.slimming import norm_rules as norms

if TYPE_CHECKING:
    from tfopt.compress.slimming.channels import Channels, Numbers

L = keras.layers
Rule: TypeAlias = "Callable[[Channels, Call], Numbers | None]"

PASSING = (
    *(L.Dropout, L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D, L.AlphaDropout),
    *(L.GaussianNoise, L.GaussianDropout, L.Identity, L.ActivityRegularization, L.Masking),
    *(L.ReLU, L.LeakyReLU, L.ELU, L.Resizing, L.UpSampling1D, L.UpSampling2D, L.UpSampling3D),
    *(L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D, L.Cropping1D, L.Cropping2D, L.Cropping3D),
    *(L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D),
    *(L.AveragePooling1D, L.AveragePooling2D, L.AveragePooling3D),
    *(L.GlobalMaxPooling1D, L.GlobalMaxPooling2D, L.GlobalMaxPooling3D),
    *(L.GlobalAveragePooling1D, L.GlobalAveragePooling2D, L.GlobalAveragePooling3D),
    *(L.RandomFlip, L.RandomRotation, L.RandomZoom, L.RandomTranslation, L.RandomCrop),
)
MERGING = (L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum)
MERGING_OPERATIONS = ("Add", "Subtract", "Multiply", "TrueDivide", "Divide", "Maximum", "Minimum")
PASSING_OPERATIONS = (
    *("Relu", "Relu6", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Silu", "HardSilu", "Mish"),
    *("Sigmoid", "HardSigmoid", "Tanh", "HardTanh", "Softplus", "Softsign", "Exp", "Absolute", "Abs"),
    *("Square", "Negative", "Clip", "Cast", "StopGradient"),
)
REDUCTIONS = ("Mean", "Max", "Min", "Sum")


def weights(call: Call) -> list:
    """The weights of a call's layer."""
    return call.operation.weights if isinstance(call.operation, L.Layer) else []


def rule(call: Call) -> Rule:
    """`rule(channels, call)` returns the numbers of the output's channels, or None: not known."""
    operation, name = call.operation, type(call.operation).__name__
    if len(call.outputs) != 1:
        return _unknown
    if not isinstance(operation, L.Layer):
        if name == "Concatenate":
            return _concatenate
        if name in REDUCTIONS:
            return _reduction
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
    return _pass(channels, call) if call.operation.activation in kernels.ELEMENTWISE else None


def _rescaling(channels: "Channels", call: Call) -> "Numbers | None":
    scalars = np.ndim(call.operation.scale) == np.ndim(call.operation.offset) == 0
    return _pass(channels, call) if scalars else None


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


def _reduction(channels: "Channels", call: Call) -> "Numbers | None":
    """A mean or maximum over places; one over channels reads them all."""
    axis, rank = call.operation.axis, len(channels.graph.tensor(call.inputs[0]).shape)
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    return None if axis is None or any(each % rank == rank - 1 for each in axes) else _pass(channels, call)


def _permute(channels: "Channels", call: Call) -> "Numbers | None":
    return _pass(channels, call) if call.operation.dims[-1] == len(call.operation.dims) else None


def _reshape(channels: "Channels", call: Call) -> "Numbers | None":
    """Flatten and Reshape: the position of every channel in the new shape."""
    before = channels.graph.tensor(call.inputs[0]).shape[1:]
    after = channels.graph.tensor(call.outputs[0]).shape[1:]
    if None in before or None in after:
        return None
    moved = np.broadcast_to(channels.of[call.inputs[0]], before).reshape(-1, after[-1])
    return moved[0] if (moved == moved[0]).all() else None


_RULES: list[tuple[tuple, Rule]] = [
    (kernels.KINDS, kernels.weighted),
    (kernels.RECURRENT, kernels.recurrent),
    ((L.Bidirectional,), kernels.bidirectional),
    ((L.MultiHeadAttention,), kernels.attention),
    ((L.BatchNormalization,), norms.batch_normalization),
    ((L.LayerNormalization, L.RMSNormalization), norms.layer_normalization),
    ((L.GroupNormalization,), norms.group_normalization),
    ((L.PReLU,), norms.prelu),
    ((L.Activation,), _activation),
    ((L.Rescaling,), _rescaling),
    (MERGING, _merge),
    ((L.Concatenate,), _concatenate),
    ((L.Flatten, L.Reshape), _reshape),
    ((L.Permute,), _permute),
    (PASSING, _pass),
]
