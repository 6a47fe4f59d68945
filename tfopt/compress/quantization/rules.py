"""Which operations have int8 kernels in TFLite, which of them share one, and where values are rounded."""

from collections.abc import Callable
from typing import Any

import keras

from tfopt.compress._graph import Call, Graph
from tfopt.compress.quantization.affine import (
    QuantizedBatchNormalization,
    QuantizedNormalization,
    QuantizedRescaling,
)
from tfopt.compress.quantization.kernels import QuantizedConv2D, QuantizedDense, QuantizedDepthwiseConv2D
from tfopt.compress.quantization.layers import FakeQuantize

L = keras.layers
A = keras.activations
Ranged = Callable[..., Any]

WEIGHTED: dict[type, type] = {
    L.Conv2D: QuantizedConv2D,
    L.DepthwiseConv2D: QuantizedDepthwiseConv2D,
    L.Dense: QuantizedDense,
}
AFFINE: dict[type, type] = {
    L.BatchNormalization: QuantizedBatchNormalization,
    L.Normalization: QuantizedNormalization,
    L.Rescaling: QuantizedRescaling,
}
# The output has the values, or means of values, of the input: the same range.
SAME_RANGE = (
    *(L.ZeroPadding2D, L.Cropping2D, L.MaxPooling2D, L.AveragePooling2D, L.GlobalMaxPooling2D),
    *(L.Flatten, L.Reshape, L.Permute, L.Identity, L.UpSampling2D),
    *(L.Dropout, L.SpatialDropout2D, L.GaussianNoise, L.GaussianDropout),
    *(L.RandomFlip, L.RandomRotation, L.RandomZoom, L.RandomTranslation, L.RandomCrop, L.RandomContrast),
)
# The output is rounded to a range of its own.
OWN_RANGE = (L.Add, L.Subtract, L.Multiply, L.Concatenate, L.GlobalAveragePooling2D, L.ReLU, L.LeakyReLU)
OPERATIONS = ("Add", "Subtract", "Multiply", "Mean", "Reshape", "Relu", "Relu6")
RELUS = (A.linear, A.relu, A.relu6)
ACTIVATIONS = (*RELUS, A.leaky_relu, A.hard_silu, A.sigmoid, A.tanh, A.softmax, A.silu, A.hard_sigmoid)
# TFLite fixes the output scale of these kernels.
PROBABILITY = {"minimum": 0.0, "maximum": 255.0 / 256.0}
FIXED = {A.sigmoid: PROBABILITY, A.softmax: PROBABILITY, A.tanh: {"minimum": -1.0, "maximum": 127.0 / 128.0}}


def activation(function: Any, inputs: Any, name: str, ranged: Ranged) -> Any:
    """An activation as TFLite computes it, rounded after each of its kernels."""
    if function is A.silu:
        gate = activation(A.sigmoid, inputs, f"{name}_sigmoid", ranged)
        return ranged(L.Multiply(name=name)([inputs, gate]), name)
    if function is A.hard_sigmoid:
        shifted = L.Rescaling(1.0, 3.0, name=f"{name}_shift")(inputs)
        clipped = ranged(L.ReLU(6.0, name=f"{name}_clip")(shifted), f"{name}_clip", minimum=0.0, maximum=6.0)
        return ranged(L.Rescaling(1.0 / 6.0, name=name)(clipped), name, minimum=0.0, maximum=1.0)
    return ranged(L.Activation(function, name=name)(inputs), name, **FIXED.get(function, {}))


def unsupported(graph: Graph, call: Call) -> bool:
    """Whether there is no rule for a call."""
    operation = call.operation
    if not isinstance(operation, L.Layer):
        return type(operation).__name__ not in OPERATIONS
    if type(operation) in WEIGHTED:
        return operation.activation not in ACTIVATIONS or not _has_kernel(operation)
    if isinstance(operation, L.Activation):
        return operation.activation not in ACTIVATIONS
    if type(operation) in AFFINE or isinstance(operation, FakeQuantize | L.Softmax):
        return False
    return not isinstance(operation, (*SAME_RANGE, *OWN_RANGE))


def folds(graph: Graph, call: Call) -> bool:
    """Whether a batch normalisation disappears in the kernel of the convolution in front of it."""
    producer = graph.producer.get(call.inputs[0])
    return (
        isinstance(call.operation, L.BatchNormalization)
        and producer is not None
        and isinstance(producer.operation, L.Conv2D | L.DepthwiseConv2D)
        and producer.operation.activation is A.linear
        and only_consumer(graph, producer) is call
    )


def fuses_forward(graph: Graph, call: Call) -> bool:
    """Whether TFLite rounds the output of this call only after the call that follows."""
    following = only_consumer(graph, call)
    if following is None:
        return False
    if isinstance(following.operation, L.Concatenate):
        return True  # all parts share the range of the whole, which is rounded once
    if isinstance(following.operation, L.BatchNormalization):
        return folds(graph, following)
    return is_relu(following.operation) and _can_fuse_relu(call.operation)


def only_consumer(graph: Graph, call: Call) -> Call | None:
    """The single call that uses the output, if there is one and the output is not one of the model's."""
    (output,) = call.outputs
    consumers = graph.consumers[output]
    return consumers[0] if len(consumers) == 1 and output not in graph.outputs else None


def is_relu(operation: Any) -> bool:
    """Whether TFLite can fuse this into the kernel in front of it."""
    if isinstance(operation, L.ReLU):
        return operation.max_value in (None, 6) and not operation.negative_slope and not operation.threshold
    return isinstance(operation, L.Activation) and operation.activation in (A.relu, A.relu6)


def _can_fuse_relu(operation: Any) -> bool:
    if type(operation) in WEIGHTED:
        return operation.activation is A.linear
    if isinstance(operation, L.Layer):
        return isinstance(operation, L.Add | L.BatchNormalization)
    return type(operation).__name__ == "Add"


def _has_kernel(layer: Any) -> bool:
    """Whether TFLite has an integer kernel for these options of a layer."""
    if isinstance(layer, L.Dense):
        return True
    dense = all(rate == 1 for rate in layer.dilation_rate) and getattr(layer, "groups", 1) == 1
    return dense and layer.data_format == "channels_last"
