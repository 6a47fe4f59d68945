"""Clones of layers and of models, with other layers or data types, weights copied."""

import copy
from collections.abc import Callable
from typing import Any

import keras

from tfopt._keras_internals import lambda_output_shape, leaf_layers
from tfopt.compress._graph import Call, Graph


def new_layer(layer: keras.Layer, name: str, kind: Any = None, **changes: Any) -> keras.Layer:
    """A new layer like the given one; its weights, once it is built, are to be set by the caller.

    Takes what `from_config` refuses: Lambdas, whose code came from the user and not from a file, and classes
    whose constructor takes no `name`.

    Args:
        layer: The layer to copy.
        name: Name of the new layer.
        kind: Class of the new layer, by default that of the layer.
        changes: Entries of the config to change.

    Raises:
        ValueError: If the layer cannot be made again from its config.
    """
    kind = kind or type(layer)
    if kind is keras.layers.Lambda:
        shape = lambda_output_shape(layer)
        options = {"mask": layer.mask, "arguments": layer.arguments, "dtype": layer.dtype_policy, **changes}
        return keras.layers.Lambda(layer.function, output_shape=shape, name=name, **options)
    try:
        config = {**layer.get_config(), **changes}
        try:
            return kind.from_config({**config, "name": name})
        except TypeError:  # a constructor without **kwargs
            known = {key: value for key, value in config.items() if key not in ("name", "trainable", "dtype")}
            made = kind.from_config(known)
            made.name = name
            return made
    except Exception as error:
        try:
            made = copy.deepcopy(layer)
        except Exception:
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) cannot be made again from its config: "
                f"{error} "
                "Give the class a `get_config` that returns the arguments of its constructor, or wrap what "
                "it "
                "does into a `keras.layers.Lambda`."
            ) from error
        made.name = name
        return made


def cloned(
    graph: Graph,
    make: Callable[[keras.Layer, str], keras.Layer],
    instead: Callable[[Call, tuple, dict], Any] | None = None,
) -> keras.Model:
    """A flat model of new layers with the weights of the old ones.

    Args:
        graph: The model.
        make: `make(layer, name)`, the new layer; the name is unique in the graph.
        instead: `instead(call, args, kwargs)`, the outputs that take the place of those of a call, or None.
    """
    clones: dict[str, keras.Layer] = {}

    def run(call: Call, args: tuple, kwargs: dict) -> Any:
        layer = call.operation
        other = None if instead is None else instead(call, args, kwargs)
        if other is not None:
            return other
        if not isinstance(layer, keras.Layer):
            return layer(*args, **kwargs)
        if call.name not in clones:
            clones[call.name] = make(layer, call.name)
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
    return cloned(Graph(model), lambda layer, name: new_layer(layer, name, dtype="float32"))
