"""Clones of a model with other layers or data types, weights copied."""

from collections.abc import Callable
from typing import Any

import keras

from tfopt._keras_internals import leaf_layers
from tfopt.compress._graph import Call, Graph


def cloned(graph: Graph, make: Callable[[keras.Layer, dict[str, Any]], keras.Layer]) -> keras.Model:
    """A flat model of new layers with the weights of the old ones.

    Args:
        graph: The model.
        make: `make(layer, config)`, the new layer; the config has the name that is unique in the graph.
    """
    clones: dict[str, keras.Layer] = {}

    def run(call: Call, args: tuple, kwargs: dict) -> Any:
        layer = call.operation
        if not isinstance(layer, keras.Layer):
            return layer(*args, **kwargs)
        if call.name not in clones:
            clones[call.name] = make(layer, {**layer.get_config(), "name": call.name})
        return clones[call.name](*args, **kwargs)

    model = graph.replay(run)
    for call in graph.calls:
        if call.name in clones:
            clones[call.name].set_weights(call.operation.get_weights())
    return model


def in_float32(model: keras.Model) -> keras.Model:
    """The model itself, or its clone in float32 if it computes in a shorter type, as the converter wants."""
    if not any(layer.compute_dtype in ("float16", "bfloat16") for layer in leaf_layers(model)):
        return model
    return cloned(Graph(model), lambda layer, config: type(layer).from_config({**config, "dtype": "float32"}))
