"""to_tf_keras and from_tf_keras: models for tools that know only Keras 2, such as tfmot, and back."""

import json
from typing import Any

import keras

from tfopt._checks import check_instance
from tfopt._optional import require
from tfopt.compress._graph import Call, Graph
from tfopt.compress.bridge_layers import translated
from tfopt.models._keras2 import plain, rebuilt
from tfopt.models._keras2_weights import set_values


def to_tf_keras(model: keras.Model) -> Any:
    """Rebuilds a Keras 3 model in tf_keras (Keras 2), with its weights.

    Use it to hand a model to tfmot or another tool that knows only Keras 2, or to compare with one. Train
    the result with tf_keras's own optimizers and callbacks; Keras 3's do not fit it. The original is not
    changed, and shares nothing with the result.

    Works for what MobileNet V1 and V2, ResNet50, plain Sequential and nested fine-tuning models consist of.
    Nested models are opened: tfmot refuses them.

    Args:
        model: A Functional or built Sequential model.

    Returns:
        A flat `tf_keras.Model` with the same layer names, weights and outputs. Not compiled.

    Raises:
        ValueError: A layer that does not exist in tf_keras or means something else there, by its name.

    Example:
        >>> model = tfopt.compress.to_tf_keras(keras.applications.MobileNet(weights=None))
        >>> wrapped = tfmot.quantization.keras.quantize_model(model)
    """
    graph = Graph(model)
    target: Any = require("tf_keras", "`tfopt.compress.to_tf_keras`")
    layers: dict[str, Any] = {}
    inputs = [
        target.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)
        for tensor in graph.model.inputs
    ]
    tensors = dict(zip(graph.inputs, inputs))
    for call in graph.calls:
        layer = _layer(call, layers, target)
        sources = [tensors[index] for index in call.inputs]
        kwargs = {key: value for key, value in call.kwargs.items() if key == "training"}
        tensors[call.outputs[0]] = layer(sources if isinstance(call.args[0], list) else sources[0], **kwargs)
    for call in graph.calls:
        layers[call.name].set_weights(call.operation.get_weights() if call.operation.weights else [])
    outputs = [tensors[index] for index in graph.outputs]
    return target.Model(_single(inputs), _single(outputs), name=model.name)


def from_tf_keras(model: Any) -> keras.Model:
    """Rebuilds a tf_keras (Keras 2) model in Keras 3, with its weights.

    Use it to bring back what `to_tf_keras` and another tool made, or an old model. Take tfmot's wrappers off
    before (`strip_pruning`, `strip_clustering`); its quantized models have no counterpart.

    Args:
        model: A Functional or built Sequential `tf_keras.Model`; models nested in it stay nested.

    Returns:
        A `keras.Model` with the same layer names, weights and outputs. Not compiled.

    Raises:
        ValueError: If a layer does not exist in Keras 3; it is named.

    Example:
        >>> pruned = tfmot.sparsity.keras.strip_pruning(wrapped)
        >>> model = tfopt.compress.from_tf_keras(pruned)
    """
    source: Any = require("tf_keras", "`tfopt.compress.from_tf_keras`")
    check_instance("model", model, source.Model)
    if not model.built or not model.inputs:
        raise ValueError(f"`model` must be Functional or a built Sequential model. Received: {model.name!r}.")
    made = rebuilt(plain(json.loads(model.to_json())))
    _copy_weights(model, made, source)
    return made


def _copy_weights(model: Any, made: keras.Model, source: Any) -> None:
    for layer in model.layers:
        if isinstance(layer, source.Model):
            _copy_weights(layer, made.get_layer(layer.name), source)
        elif layer.weights:
            set_values(made.get_layer(layer.name), layer.get_weights())


def _layer(call: Call, layers: dict[str, Any], target: Any) -> Any:
    if not isinstance(call.operation, keras.layers.Layer):
        raise ValueError(
            f"Operation {call.name!r} ({type(call.operation).__name__}) cannot cross the bridge."
        )
    if call.name not in layers:
        layers[call.name] = translated(call.operation, target, call.name)
    return layers[call.name]


def _single(values: list) -> Any:
    return values if len(values) > 1 else values[0]
