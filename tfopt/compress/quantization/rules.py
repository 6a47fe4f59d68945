"""Which operations have int8 kernels in TFLite, which of them share one, and where values are rounded."""

from typing import Any

import keras
import numpy as np

from tfopt.compress._device_resizing import SMOOTH
from tfopt.compress._graph import Call, Graph
from tfopt.compress.quantization.activations import has_kernels
from tfopt.compress.quantization.affine import (
    QuantizedBatchNormalization,
    QuantizedNormalization,
    QuantizedRescaling,
    ScaleShift,
)
from tfopt.compress.quantization.convolutions import (
    QuantizedConv1D,
    QuantizedConv2DTranspose,
    QuantizedDepthwiseConv1D,
)
from tfopt.compress.quantization.kernels import QuantizedConv2D, QuantizedDense, QuantizedDepthwiseConv2D
from tfopt.compress.quantization.layers import FakeQuantize
from tfopt.compress.quantization.operations import InverseRoot, WithWeights

L = keras.layers
A = keras.activations

WEIGHTED: dict[type, type] = {
    L.Conv1D: QuantizedConv1D,
    L.Conv2D: QuantizedConv2D,
    L.Conv2DTranspose: QuantizedConv2DTranspose,
    L.DepthwiseConv1D: QuantizedDepthwiseConv1D,
    L.DepthwiseConv2D: QuantizedDepthwiseConv2D,
    L.Dense: QuantizedDense,
}
AFFINE: dict[type, type] = {
    L.BatchNormalization: QuantizedBatchNormalization,
    L.Normalization: QuantizedNormalization,
    L.Rescaling: QuantizedRescaling,
}
FOLDING = (L.Conv1D, L.Conv2D, L.DepthwiseConv1D, L.DepthwiseConv2D)
# The output has the values, or means of values, of the input: the same range.
SAME_RANGE = (
    *(
        L.ZeroPadding1D,
        L.ZeroPadding2D,
        L.Cropping1D,
        L.Cropping2D,
        L.UpSampling1D,
        L.UpSampling2D,
        L.Resizing,
    ),
    *(L.MaxPooling1D, L.MaxPooling2D, L.AveragePooling1D, L.AveragePooling2D),
    *(L.GlobalMaxPooling1D, L.GlobalMaxPooling2D, L.CenterCrop, L.RepeatVector),
    *(L.Flatten, L.Reshape, L.Permute, L.Identity, L.ActivityRegularization),
    *(L.Dropout, L.SpatialDropout1D, L.SpatialDropout2D, L.AlphaDropout, L.GaussianNoise, L.GaussianDropout),
    *(L.RandomFlip, L.RandomRotation, L.RandomZoom, L.RandomTranslation, L.RandomCrop, L.RandomContrast),
)
# Operations of which the same holds. (Operations have no public classes: they are known by name.)
SAME_RANGE_OPERATIONS = frozenset(
    ["Reshape", "Transpose", "Squeeze", "ExpandDims", "GetItem", "Split", "DepthToSpace", "Max", "Min", "Pad"]
    + ["Swapaxes", "Moveaxis", "Ravel", "Take", "Repeat", "Tile", "Flip", "Copy", "StopGradient", "Identity"]
    + ["ConvertToTensor", "Resize"]
)
# The output is rounded to a range of its own.
OWN_RANGE = (
    *(L.Add, L.Subtract, L.Multiply, L.Maximum, L.Minimum, L.Concatenate, L.Dot, L.Embedding),
    *(L.GlobalAveragePooling1D, L.GlobalAveragePooling2D, L.ReLU, L.LeakyReLU, L.PReLU),
    *(ScaleShift, InverseRoot),
)
OWN_RANGE_OPERATIONS = frozenset(
    [
        "Add",
        "Subtract",
        "Multiply",
        "Mean",
        "Sum",
        "Maximum",
        "Minimum",
        "Matmul",
        "Einsum",
        "Concatenate",
        "Stack",
    ]
    + [
        "Relu",
        "ReLU",
        "Relu6",
        "LeakyRelu",
        "HardSilu",
        "Gelu",
        "Exp",
        "Log",
        "Absolute",
        "Abs",
        "Rsqrt",
        "Sqrt",
        "Clip",
    ]
    + ["Where", "Dot", "Tensordot", "Vstack", "Hstack", "Append"]
)
# Operations that are activations, by name.
ACTIVATION_OPERATIONS = {
    "Sigmoid": A.sigmoid,
    "Tanh": A.tanh,
    "Softmax": A.softmax,
    "Silu": A.silu,
    "HardSigmoid": A.hard_sigmoid,
    "Elu": A.elu,
    "Selu": A.selu,
    "Softplus": A.softplus,
    "Mish": A.mish,
}
# Float operations that the converter would make integer in part, for a file that no interpreter runs.
HALF_KERNELS = (L.Masking,)
# They take indices or exact numbers: their inputs are never rounded.
LOOKUPS = (
    "Embedding",
    "IntegerLookup",
    "StringLookup",
    "Hashing",
    "Discretization",
    "CategoryEncoding",
    "Cast",
)


def operation_name(operation: Any) -> str:
    """Name of the class, for `WithWeights` of the operation in it."""
    return type(operation.operation if isinstance(operation, WithWeights) else operation).__name__


def keeps_range(call: Call) -> bool:
    """Whether the output of a call has the values of its input."""
    operation = call.operation
    if isinstance(operation, L.Layer):
        return type(operation) in SAME_RANGE
    return type(operation).__name__ in SAME_RANGE_OPERATIONS


def computes_in_float(call: Call) -> str | None:
    """What TFLite has no integer kernel for in a call, or None if it has one."""
    operation, kind = call.operation, type(call.operation)
    function = getattr(operation, "activation", None)
    if kind in WEIGHTED and not _has_kernel(operation):
        return f"{call.name} ({kind.__name__} with these options)"
    if (kind in WEIGHTED or kind is L.Activation) and not has_kernels(function):
        return f"{call.name} (its activation {getattr(function, '__name__', type(function).__name__)})"
    if getattr(operation, "interpolation", None) in SMOOTH:
        return f"{call.name} ({kind.__name__} by {operation.interpolation})"
    if kind in WEIGHTED or kind in AFFINE or kind in (L.Activation, L.Softmax, L.ELU, FakeQuantize):
        return None
    name = operation_name(operation)
    known = kind in SAME_RANGE or kind in OWN_RANGE
    if not isinstance(operation, L.Layer) or isinstance(operation, WithWeights):
        known = name in SAME_RANGE_OPERATIONS | OWN_RANGE_OPERATIONS | ACTIVATION_OPERATIONS.keys()
    return None if known else f"{call.name} ({name})"


def is_per_channel(call: Call, graph: Graph) -> bool:
    """Whether a normalization or rescaling has one number, or one for each channel of the last axis."""
    operation, rank = call.operation, len(graph.tensor(call.inputs[0]).shape)
    channels = graph.tensor(call.inputs[0]).shape[-1]
    if isinstance(operation, L.BatchNormalization):
        return operation.axis in (-1, rank - 1)
    if isinstance(operation, L.Normalization):
        return operation.mean is not None and int(np.prod(operation.mean.shape)) == operation.mean.shape[
            -1
        ] in (1, channels)
    return all(np.size(number) in (1, channels) for number in (operation.scale, operation.offset))


def folds(graph: Graph, call: Call) -> bool:
    """Whether a batch normalization disappears in the kernel of the convolution in front of it."""
    producer = graph.producer.get(call.inputs[0])
    return (
        isinstance(call.operation, L.BatchNormalization)
        and producer is not None
        and type(producer.operation) in FOLDING
        and producer.operation.activation is A.linear
        and producer.operation.data_format == "channels_last"
        and is_per_channel(call, graph)
        and only_consumer(graph, producer) is call
    )


def is_depthwise(layer: Any) -> bool:
    """Whether each channel of a convolution has kernels of its own."""
    return isinstance(layer, L.DepthwiseConv1D | L.DepthwiseConv2D)


def fuses_forward(graph: Graph, call: Call) -> bool:
    """Whether TFLite rounds the output of this call only after the call that follows."""
    following = only_consumer(graph, call)
    if following is None:
        return False
    if is_concatenation(following.operation):
        # All parts share the range of the whole, which is rounded once; without a range of its own, a result
        # with the scale of its inputs would get that of the first one.
        return not shares_scale(call.operation)
    if isinstance(following.operation, L.BatchNormalization):
        return folds(graph, following)
    return is_relu(following.operation) and _can_fuse_relu(call.operation)


def is_concatenation(operation: Any) -> bool:
    """Whether the output consists of the inputs."""
    return isinstance(operation, L.Concatenate) or type(operation).__name__ in ("Concatenate", "Stack")


def shares_scale(operation: Any) -> bool:
    """Whether TFLite wants one scale for several inputs."""
    return is_concatenation(operation) or operation_name(operation) in ("Maximum", "Minimum", "Where")


def only_consumer(graph: Graph, call: Call) -> Call | None:
    """The single call that uses the output, if there is one and the output is not one of the model's."""
    if len(call.outputs) != 1:
        return None
    (output,) = call.outputs
    consumers = graph.consumers[output]
    return consumers[0] if len(consumers) == 1 and output not in graph.outputs else None


def is_relu(operation: Any) -> bool:
    """Whether TFLite can fuse this into the kernel in front of it."""
    if type(operation).__name__ == "ReLU":  # the layer, and the operation behind `keras.activations.relu`
        return operation.max_value in (None, 6) and not operation.negative_slope and not operation.threshold
    if isinstance(operation, L.Activation):
        return operation.activation in (A.relu, A.relu6)
    return type(operation).__name__ in ("Relu", "Relu6")


def _can_fuse_relu(operation: Any) -> bool:
    if type(operation) in WEIGHTED:
        return operation.activation is A.linear
    if isinstance(operation, L.Layer):
        return isinstance(operation, L.Add | L.BatchNormalization | ScaleShift)
    return type(operation).__name__ == "Add"


def _has_kernel(layer: Any) -> bool:
    """Whether TFLite has an integer kernel for these options of a layer."""
    if isinstance(layer, L.Dense):
        return True
    dilated = any(rate != 1 for rate in layer.dilation_rate)
    if isinstance(layer, L.Conv2DTranspose) and (dilated or layer.output_padding is not None):
        return False
    return layer.data_format == "channels_last"
