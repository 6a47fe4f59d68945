"""quantize_aware: a clone of a model that trains with the rounding of its int8 file."""

from typing import Any

import keras

from tfopt._checks import check_instance
from tfopt.compress._graph import Call, Graph
from tfopt.compress.quantization.layers import (
    FakeQuantize,
    QuantizedConv2D,
    QuantizedDense,
    QuantizedDepthwiseConv2D,
)

L = keras.layers
WEIGHTED: dict[type, type] = {
    L.Conv2D: QuantizedConv2D,
    L.DepthwiseConv2D: QuantizedDepthwiseConv2D,
    L.Dense: QuantizedDense,
}
# These pass on values of their input, so the output keeps its range.
SAME_RANGE = (L.ZeroPadding2D, L.Cropping2D, L.MaxPooling2D, L.Flatten, L.Reshape, L.Permute, L.Dropout)
PIXELS = (0.0, 255.0)
PROBABILITIES = (0.0, 255.0 / 256.0)


def quantize_aware(model: keras.Model, *, freeze_batch_norm: bool = True) -> keras.Model:
    """Returns a clone that computes with int8 values, to be trained a little and exported.

    Use it when `export(quantization="int8")` of the float model loses accuracy. Compile the clone with a
    small learning rate (a tenth of the last one), fit it for an epoch or more, then export it; no
    representative data is needed. The original model is not changed, and shares nothing with the clone.

        weights:      symmetric, 8 bits, a scale per channel (Dense: one per kernel)
        activations:  8 bits, range learned as a moving average of batch extremes

    Batch normalisation stays a layer; the converter folds it into the kernel in front of it.

    Args:
        model: A Functional or Sequential model; models nested in it are opened. If it starts with
            `Rescaling`, its inputs are taken to be pixels in [0, 255], and the file will take uint8.
        freeze_batch_norm: Keep the statistics, scales and shifts that the model has learned. The clone then
            starts as the function that the model is, and trains faster. False trains them on.

    Returns:
        A flat `keras.Model` with the same inputs, outputs and layer names. Not compiled.

    Raises:
        ValueError: the model is subclassed or not built.

    Example:
        >>> quantized = tfopt.compress.quantize_aware(model)
        >>> quantized.compile(keras.optimizers.Adam(1e-5), "sparse_categorical_crossentropy")
        >>> quantized.fit(train, epochs=2)
        >>> tfopt.compress.export(quantized, "flowers.tflite", quantization="int8")

    Differs from tfmot: takes Keras 3 models, nested ones too; depthwise kernels have a scale per channel;
    any Keras optimizer, callback and strategy trains the clone; it saves and loads as `.keras`.

    References:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient Inference. arXiv:1712.05877
        Krishnamoorthi: Quantizing deep convolutional networks for efficient inference. arXiv:1806.08342
    """
    check_instance("freeze_batch_norm", freeze_batch_norm, bool)
    graph = Graph(model)
    clones: dict[str, keras.Layer] = {}

    def run(call: Call, args: tuple, kwargs: dict) -> Any:
        if isinstance(call.operation, L.Rescaling) and set(call.inputs) <= set(graph.inputs):
            return _rescaled(call, *args)
        if not isinstance(call.operation, L.Layer):
            output = call.operation(*args, **kwargs)
        else:
            if call.name not in clones:
                clones[call.name] = _clone(call)
            output = clones[call.name](*args, **kwargs)
        return _rounded(graph, call, output)

    quantized = graph.replay(run, source=lambda tensor: _source(graph, tensor))
    for call in graph.calls:
        if call.name in clones:
            clones[call.name].set_weights(call.operation.get_weights())
    for layer in quantized.layers if freeze_batch_norm else ():
        if isinstance(layer, L.BatchNormalization):
            layer.trainable = False
    return quantized


def _clone(call: Call) -> keras.Layer:
    layer = call.operation
    kind: Any = WEIGHTED.get(type(layer), type(layer))
    return kind.from_config({**layer.get_config(), "name": call.name})


def _source(graph: Graph, tensor: keras.KerasTensor) -> keras.KerasTensor:
    first = [call.operation for index in graph.inputs for call in graph.consumers[index]]
    pixels = all(isinstance(operation, L.Rescaling) for operation in first)
    limits = dict(zip(("minimum", "maximum"), PIXELS)) if pixels else {}
    return FakeQuantize(name=f"{tensor.name}_range", **limits)(tensor)


def _rescaled(call: Call, pixels: keras.KerasTensor) -> keras.KerasTensor:
    """Rescaling of pixels as the two integer kernels that TFLite has for it: a product and a sum."""
    scale, offset, name = call.operation.scale, call.operation.offset, call.name
    product = L.Rescaling(scale, name=f"{name}_scale")(pixels)
    product = FakeQuantize(name=f"{name}_scale_range", **_grid(*(scale * end for end in PIXELS)))(product)
    total = L.Rescaling(1.0, offset, name=name)(product)
    limits = _grid(*(scale * end + offset for end in PIXELS))
    return FakeQuantize(name=f"{name}_range", **limits)(total)


def _grid(low: float, high: float) -> dict[str, float]:
    """A range that holds both ends and has zero exactly on one of its 256 levels.

    Without the latter, [-1, 1] puts every pixel halfway between two levels.
    """
    if low >= 0.0 or high <= 0.0:
        return {"minimum": min(low, 0.0), "maximum": max(high, 0.0)}
    step = max(-low / 128, high / 127)
    return {"minimum": -128 * step, "maximum": 127 * step}


def _rounded(graph: Graph, call: Call, output: Any) -> Any:
    if isinstance(call.operation, SAME_RANGE) or _fuses_forward(graph, call):
        return output
    name = f"{call.name}_range" if call.operation else "range"
    if _is_softmax(call.operation):
        return FakeQuantize(name=name, minimum=PROBABILITIES[0], maximum=PROBABILITIES[1])(output)
    return FakeQuantize(name=name)(output)


def _fuses_forward(graph: Graph, call: Call) -> bool:
    """Whether TFLite computes this call and its only consumer in one kernel."""
    (output,) = call.outputs
    consumers = graph.consumers[output]
    if len(consumers) != 1 or output in graph.outputs:
        return False
    following = consumers[0].operation
    if type(call.operation) in WEIGHTED and call.operation.activation is keras.activations.linear:
        return isinstance(following, L.BatchNormalization) or _is_relu(following)
    return isinstance(call.operation, L.BatchNormalization) and _is_relu(following)


def _is_relu(operation: Any) -> bool:
    if isinstance(operation, L.ReLU):
        return operation.max_value in (None, 6) and not operation.negative_slope and not operation.threshold
    relus = (keras.activations.relu, keras.activations.relu6)
    return isinstance(operation, L.Activation) and operation.activation in relus


def _is_softmax(operation: Any) -> bool:
    if isinstance(operation, L.Softmax):
        return True
    return isinstance(operation, L.Activation) and operation.activation is keras.activations.softmax
