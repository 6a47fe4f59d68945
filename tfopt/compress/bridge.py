"""to_tf_keras and from_tf_keras: models for tools that know only Keras 2, such as tfmot, and back."""

from typing import Any

import keras

from tfopt._checks import check_instance
from tfopt._optional import require
from tfopt.compress._graph import Call, Graph
from tfopt.compress.bridge_layers import translated


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
        ValueError: a layer that does not exist in tf_keras or means something else there, by its name.

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
        ValueError: a layer that does not exist in Keras 3 or means something else there, by its name.

    Example:
        >>> pruned = tfmot.sparsity.keras.strip_pruning(wrapped)
        >>> model = tfopt.compress.from_tf_keras(pruned)
    """
    source: Any = require("tf_keras", "`tfopt.compress.from_tf_keras`")
    check_instance("model", model, source.Model)
    if not model.built or not model.inputs:
        raise ValueError(f"`model` must be Functional or a built Sequential model. Received: {model.name!r}.")
    made = {layer.name: _made(layer, source) for layer in model.layers}
    sequential = isinstance(model, source.Sequential)
    rebuilt = _sequential(model, made) if sequential else _functional(model, made)
    for layer in model.layers:
        if layer.weights and not isinstance(layer, source.Model):
            made[layer.name].set_weights(layer.get_weights())
    return rebuilt


def _layer(call: Call, layers: dict[str, Any], target: Any) -> Any:
    if not isinstance(call.operation, keras.layers.Layer):
        raise ValueError(
            f"Operation {call.name!r} ({type(call.operation).__name__}) cannot cross the bridge."
        )
    if call.name not in layers:
        layers[call.name] = translated(call.operation, target, call.name)
    return layers[call.name]


def _made(layer: Any, source: Any) -> Any:
    if isinstance(layer, source.layers.InputLayer):
        return None
    return from_tf_keras(layer) if isinstance(layer, source.Model) else translated(layer, keras, layer.name)


def _sequential(model: Any, made: dict[str, Any]) -> keras.Model:
    first = _input(model.inputs[0], model.inputs[0].name.split(":")[0])
    return keras.Sequential([first, *(layer for layer in made.values() if layer)], name=model.name)


def _functional(model: Any, made: dict[str, Any]) -> keras.Model:
    """Repeats the calls that the model's configuration lists: [layer, call, tensor, options] per input."""
    config = model.get_config()
    tensors: dict[tuple[str, int], Any] = {}
    waiting = []
    for layer in config["layers"]:
        if layer["class_name"] == "InputLayer":
            tensors[layer["name"], 0] = _input(model.get_layer(layer["name"]).output, layer["name"])
        for number, node in enumerate(layer["inbound_nodes"], _first_call(config, layer["name"])):
            waiting.append((layer["name"], number, node))
    while waiting:
        ready = [call for call in waiting if all((entry[0], entry[1]) in tensors for entry in call[2])]
        if not ready:
            raise ValueError(f"The calls of these layers cannot cross the bridge: {[c[0] for c in waiting]}.")
        for name, number, node in ready:
            values = [tensors[entry[0], entry[1]] for entry in node]
            options = {key: value for key, value in node[0][3].items() if value is not None}
            tensors[name, number] = made[name](_single(values), **options)
        waiting = [call for call in waiting if call not in ready]
    ends = [
        [tensors[name, number] for name, number, _ in _listed(config[f"{side}_layers"])]
        for side in ("input", "output")
    ]
    return keras.Model(*(_single(end) for end in ends), name=model.name)


def _first_call(config: dict[str, Any], name: str) -> int:
    """Number of a layer's first call: a nested model may have one from when it was made."""
    calls = [node for layer in config["layers"] for node in layer["inbound_nodes"]]
    uses = [*(entry for node in calls for entry in node), *_listed(config["output_layers"])]
    return min((entry[1] for entry in uses if entry[0] == name), default=0)


def _input(tensor: Any, name: str) -> Any:
    return keras.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype.name, name=name)


def _listed(entries: list) -> list:
    """One entry comes without the list around it."""
    return [entries] if entries and isinstance(entries[0], str) else entries


def _single(values: list) -> Any:
    return values if len(values) > 1 else values[0]
