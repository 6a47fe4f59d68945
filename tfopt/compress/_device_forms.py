"""Layers in the form that converter and devices understand, for the time of one trace.

The user's model stays as it is: a layer's `call` or data type is replaced on the instance and put back.
"""

import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tfopt._keras_internals import every_layer, nodes
from tfopt.compress._device_activations import integer_activation, integer_operation
from tfopt.compress._device_encoding import table_of_categories
from tfopt.compress._device_functions import device_function
from tfopt.compress._device_normalization import integer_form
from tfopt.compress._device_pooling import flat_pooling
from tfopt.compress._device_resizing import smooth_resizing
from tfopt.compress.quantization.operations import ALMOST_ONE

L = keras.layers
UNROLLED_STEPS = 256  # a longer unrolled loop makes graphs that take minutes to convert


@contextlib.contextmanager
def device_forms(
    model: keras.Model,
    *,
    fuse: bool = True,
    unroll: bool = False,
    rescale: bool = False,
    integers: bool = False,
) -> Iterator[None]:
    """Makes the model, while the context lasts, trace to operations that TFLite has in every precision.

    - Layers in mixed precision compute in float32: the converter has no half-precision operations.
    - Nearest upsampling is RESIZE_NEAREST_NEIGHBOR, which microcontrollers have, and not TILE.
    - Layer and group normalization have no operation that lacks integer kernels.
    - Pooling over three dimensions, which TFLite lacks, is pooling over two, twice.
    - Categories are rows of a table.
    - Bicubic and similar resizing is two products with matrices.
    - ELU, SELU, CELU, softplus and mish are operations that int8 computes well (with `integers`).
    - Tangent, hyperbolic and inverse functions and the error function are made of those that TFLite has.
    - The index of the largest or smallest number is one operation.
    - LSTM is one UNIDIRECTIONAL_SEQUENCE_LSTM operation (with `fuse`), which has integer kernels.
    - Other loops over time are unrolled (with `unroll`): ranges cannot be measured inside a loop.

    Args:
        model: A built Keras model.
        fuse: Whether LSTM layers become one operation.
        unroll: Whether recurrent layers that are not fused are unrolled.
        integers: Whether ranges of activations are measured, which those with an exponential make too wide.
        rescale: Whether what an LSTM returns gets its own scale, needed in int8 where outputs are joined.
    """
    rescale = rescale and _joins(model)
    with contextlib.ExitStack() as stack:
        for layer in every_layer(model):
            if layer.compute_dtype in ("float16", "bfloat16"):
                stack.enter_context(_attribute(layer, "dtype_policy", keras.dtype_policies.get("float32")))
            if isinstance(layer, L.UpSampling2D) and _repeats(layer):
                stack.enter_context(_call(layer, _nearest(layer)))
            other = integer_form(layer) or flat_pooling(layer)
            other = other or smooth_resizing(layer) or table_of_categories(layer)
            if other is not None:
                stack.enter_context(_call(layer, other))
            activation = integer_activation(layer) if integers and not isinstance(layer, L.RNN) else None
            if activation is not None:
                name, function = activation
                stack.enter_context((_call if name == "call" else _activation)(layer, function))
            if unroll and isinstance(layer, L.RNN):
                stack.enter_context(_attribute(layer, "unroll", True))
            if fuse and is_fusible(layer):
                stack.enter_context(_call(layer, _fused(layer, rescale)))
        for operation in _operations(model):
            form = _index(operation) or smooth_resizing(operation) or table_of_categories(operation)
            form = form or device_function(operation)
            form = form or (integer_operation(operation) if integers else None)
            if form is not None:
                stack.enter_context(_call(operation, form))
        yield


def _operations(model: keras.Model) -> list[Any]:
    """What Functional models, nested ones too, call beside layers."""
    models = [layer for layer in every_layer(model) if isinstance(layer, keras.Model)]
    called = {id(node.operation): node.operation for each in models for node in nodes(each)}
    return [operation for operation in called.values() if not isinstance(operation, keras.Layer)]


def _index(operation: Any) -> Callable[[Any], Any] | None:
    """`keras.ops.argmax` and `argmin` as one operation each.

    Keras puts a test for negative zeros in front, with operations on bits that TFLite lacks.
    """
    function = {"Argmax": tf.argmax, "Argmin": tf.argmin}.get(type(operation).__name__)
    if function is None or operation.axis is None or operation.keepdims:
        return None
    return lambda inputs: function(inputs, operation.axis, output_type=tf.int32)


def recurrent_layers(model: keras.Model) -> list[keras.Layer]:
    """The layers that loop over time."""
    return [layer for layer in every_layer(model) if isinstance(layer, L.RNN)]


def is_fusible(layer: keras.Layer) -> bool:
    """Whether TFLite's LSTM operation computes what the layer does: its gates and first states are fixed."""
    if type(layer) is not L.LSTM or layer.stateful or layer.return_state:
        return False
    cell = layer.cell
    usual = keras.activations.tanh, keras.activations.sigmoid
    return (cell.activation, cell.recurrent_activation) == usual


@contextlib.contextmanager
def _attribute(layer: keras.Layer, name: str, value: Any) -> Iterator[None]:
    old = getattr(layer, name)
    setattr(layer, name, value)
    try:
        yield
    finally:
        setattr(layer, name, old)


@contextlib.contextmanager
def _call(layer: keras.Layer, function: Callable[..., Any]) -> Iterator[None]:
    """Replaces `call` on the instance; Keras would track an attribute that is set in the usual way."""
    object.__setattr__(layer, "call", function)
    try:
        yield
    finally:
        object.__delattr__(layer, "call")


def _activation(layer: keras.Layer, function: Callable[..., Any]) -> Any:
    return _attribute(layer, "activation", function)


def _repeats(layer: keras.Layer) -> bool:
    return bool(layer.interpolation == "nearest" and layer.data_format == "channels_last")


def _nearest(layer: keras.Layer) -> Callable[[Any], Any]:
    def call(inputs: Any) -> Any:
        height, width = inputs.shape[1:3]
        if height is None or width is None or inputs.dtype != tf.float32:
            return type(layer).call(layer, inputs)
        size = [height * layer.size[0], width * layer.size[1]]
        return tf.raw_ops.ResizeNearestNeighbor(images=inputs, size=size)

    return call


def _joins(model: keras.Model) -> bool:
    """Whether outputs may be joined to one tensor: by a layer, or by an operation between layers."""
    joining = L.Bidirectional | L.Concatenate | L.Maximum | L.Minimum
    operations = [node.operation for node in nodes(model)]
    return any(isinstance(layer, joining) for layer in every_layer(model)) or not all(
        isinstance(operation, keras.Layer) for operation in operations
    )


def _fused(layer: keras.Layer, rescale: bool) -> Callable[..., Any]:
    """The layer's `call` as a function that the converter recognizes by its attributes.

    The form (arguments, five results, `api_implements`) is that of Keras 2's LSTM, for which the converter
    has a pattern: tensorflow/compiler/mlir/lite/utils/lstm_utils.cc, ConvertKerasLSTMLayer.
    """

    def call(sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        if mask is not None or initial_state is not None or None in sequences.shape[:2]:
            return type(layer).call(layer, sequences, initial_state=initial_state, mask=mask, training=False)
        cell, units = layer.cell, layer.units
        zeros = tf.zeros((sequences.shape[0], units))
        bias = tf.zeros((4 * units,)) if cell.bias is None else tf.convert_to_tensor(cell.bias)
        weights = tf.convert_to_tensor(cell.kernel), tf.convert_to_tensor(cell.recurrent_kernel), bias
        backwards = layer.go_backwards
        function = tf.function(
            _lstm,
            autograph=False,
            experimental_attributes={
                "api_implements": f"lstm_{uuid.uuid4()}",
                "api_preferred_device": "CPU",
                "time_major": False,
                "go_backwards": False,
            },
        )
        sequences = tf.reverse(sequences, [1]) if backwards else sequences
        last, every, *_ = function(sequences, zeros, zeros, *weights)
        result = every if layer.return_sequences else last
        # A concatenation gives its inputs one scale. The LSTM operation's output would get it too, but its
        # state would not, and the integer kernel takes the two for equal. A factor of exactly 1 is removed.
        return result * ALMOST_ONE if rescale else result

    return call


def _lstm(inputs: Any, state: Any, memory: Any, kernel: Any, recurrent: Any, bias: Any) -> tuple:
    """One LSTM over a batch of sequences; the converter takes it for the pattern and drops the loop."""
    steps, by_time = inputs.shape[1], tf.transpose(inputs, [1, 0, 2])
    collected = tf.TensorArray(inputs.dtype, size=steps, element_shape=state.shape)

    def step(time: Any, state: Any, memory: Any, collected: Any) -> tuple:
        gates = by_time[time] @ kernel + state @ recurrent + bias
        enter, forget, new, leave = tf.split(gates, 4, axis=1)
        memory = tf.sigmoid(forget) * memory + tf.sigmoid(enter) * tf.tanh(new)
        state = tf.sigmoid(leave) * tf.tanh(memory)
        return time + 1, state, memory, collected.write(time, state)

    start = (tf.constant(0), state, memory, collected)
    _, state, memory, collected = tf.while_loop(lambda time, *_: time < steps, step, start)
    every = tf.transpose(collected.stack(), [1, 0, 2])
    return state, every, state, memory, tf.constant(1.0)
