"""Layers of a slimmed model: copies with the options and weights of the channels that stay."""

from typing import Any

import keras
import numpy as np

from tfopt.compress._graph import Call, Graph
from tfopt.compress.slimming.channels import Channels, Numbers
from tfopt.compress.slimming.norm_rules import kept_groups

L = keras.layers


def rebuilt(graph: Graph, channels: Channels, kept: np.ndarray) -> keras.Model:
    """The model of a graph with the units for which `kept` is true."""
    layers: dict[str, keras.layers.Layer] = {}

    def run(call: Call, args: tuple, kwargs: dict) -> Any:
        if not isinstance(call.operation, keras.layers.Layer):
            return call.operation(*args, **kwargs)
        if call.name not in layers:
            layers[call.name] = _copy(channels, kept, call)
        return layers[call.name](*args, **kwargs)

    model = graph.replay(run)
    for call in graph.calls:
        if call.name in layers:
            old, new = call.operation.weights, layers[call.name].weights
            for before, after in zip(old, new, strict=True):
                after.assign(_sliced(channels, kept, before))
    return model


def _copy(channels: Channels, kept: np.ndarray, call: Call) -> keras.layers.Layer:
    layer = call.operation
    try:
        config = {**layer.get_config(), "name": call.name}
        _resize(config, channels, kept, call)
        copy = type(layer).from_config(config)
    except Exception as error:
        if layer.weights:
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) cannot be copied: {error} Give its class a "
                "`get_config` that returns the arguments of its constructor, and register the class."
            ) from error
        return layer  # a Lambda or the like: nothing in it is trained, so the copy may share it
    copy.trainable = True  # not by the config: `SpatialDropout2D` refuses it there
    return copy


def _resize(config: dict[str, Any], channels: Channels, kept: np.ndarray, call: Call) -> None:
    """Writes the number of channels that stay into the options that hold it."""
    layer = call.operation
    if call.name in channels.whole or len(call.outputs) != 1:
        return
    numbers = channels.of[call.outputs[0]]
    count = _count(channels, kept, numbers)
    if type(layer) is L.Reshape:
        config["target_shape"] = (*layer.target_shape[:-1], count)
    if isinstance(layer, L.GroupNormalization) or getattr(layer, "groups", 1) != 1:
        config["groups"] = kept_groups(layer, len(numbers), count)
    if isinstance(layer, L.MultiHeadAttention):
        heads = channels.axes[id(layer.query_dense.kernel)][1]
        config.update(num_heads=_count(channels, kept, heads), output_shape=(count,))
    elif isinstance(layer, L.Bidirectional):
        units = _count(channels, kept, channels.axes[id(layer.forward_layer.cell.recurrent_kernel)][0])
        for part in ("layer", "backward_layer"):
            if part in config:
                config[part]["config"]["units"] = units
                config[part].pop("build_config", None)  # it holds the old number of inputs
    elif isinstance(layer, L.EinsumDense):
        config["output_shape"] = (*layer.partial_output_shape[:-1], count)
    elif isinstance(layer, L.Embedding):
        config["output_dim"] = count
    elif any(id(weight) in channels.made for weight in layer.weights):
        config.update({name: count for name in ("filters", "units") if name in config})


def _count(channels: Channels, kept: np.ndarray, numbers: Numbers) -> int:
    return int(np.count_nonzero(kept[channels.unit[numbers]]))


def _sliced(channels: Channels, kept: np.ndarray, weight: Any) -> Numbers:
    value = np.asarray(weight)
    for axis, numbers in channels.axes.get(id(weight), {}).items():
        value = np.compress(kept[channels.unit[numbers]], value, axis)
    return value
