"""Weights as Keras 2 stored them (HDF5, `.keras` archives, checkpoints), set in rebuilt models."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

Named = list[tuple[str, np.ndarray]]


def from_hdf5(model: keras.Model, group: Any) -> None:
    """Sets all weights from the group of an `.h5` file, layer by layer, by their names.

    Args:
        model: A model from `rebuilt`.
        group: The group "model_weights"; its entries are the layers of the model.

    Raises:
        ValueError: If the weights of a layer do not fit it.
    """
    for layer in model.layers:
        if layer.name in group:
            names = [_text(name) for name in group[layer.name].attrs.get("weight_names", [])]
            _set_named(layer, [(name, np.asarray(group[layer.name][name])) for name in names])
        elif layer.weights:
            raise ValueError(f"The file has no weights for layer {layer.name!r}.")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _set_named(layer: keras.Layer, named: Named) -> None:
    """Sets a layer's weights; those of a nested model are told apart by the names of its layers in theirs."""
    if isinstance(layer, keras.Model):
        for inner, part in _by_layer(layer, named).items():
            _set_named(layer.get_layer(inner), part)
    elif isinstance(layer, keras.layers.Bidirectional):
        half = len(named) // 2
        _set_named(layer.forward_layer, named[:half])
        _set_named(layer.backward_layer, named[half:])
    elif isinstance(layer, keras.layers.Wrapper):
        _set_named(layer.layer, named)
    else:
        set_values(layer, [value for _, value in named])


def _by_layer(model: keras.Model, named: Named) -> dict[str, Named]:
    names = {inner.name for inner in model.layers}
    found: dict[str, Named] = {}
    for name, value in named:
        parts = name.split("/")
        owner = next((part for part in parts if part in names), None)
        if owner is None:
            return _by_order(model, named)
        found.setdefault(owner, []).append(("/".join(parts[parts.index(owner) + 1 :]), value))
    return found


def _by_order(model: keras.Model, named: Named) -> dict[str, Named]:
    """Keras 2 lists what is trainable in a nested model first, then the rest."""
    found: dict[str, Named] = {}
    waiting = list(named)
    for wanted in (True, False):
        for inner in model.layers:
            weights = inner.trainable_weights if wanted else inner.non_trainable_weights
            part, waiting = waiting[: len(weights)], waiting[len(weights) :]
            found[inner.name] = found.get(inner.name, []) + part
    return found


def set_values(layer: keras.Layer, values: Sequence[np.ndarray]) -> None:
    """Sets the weights of one layer in the order in which Keras 2 lists them.

    Raises:
        ValueError: If number or shapes differ.
    """
    weights = layer.weights
    if not weights:  # a layer of random augmentation has its generator's state there
        return
    if len(values) == len(weights):
        values = [_shaped(value, weight) for value, weight in zip(values, weights)]
    shapes = [tuple(value.shape) for value in values]
    wanted = [tuple(weight.shape) for weight in weights]
    if shapes != wanted:
        raise ValueError(
            f"The weights of layer {layer.name!r} ({type(layer).__name__}) must have the shapes {wanted}. "
            f"The file has {shapes}."
        )
    for weight, value in zip(weights, values):
        weight.assign(value)
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()


def _shaped(value: np.ndarray, weight: Any) -> np.ndarray:
    """Without or with dimensions of 1 that the other Keras has, as in the statistics of `Normalization`."""
    shape = tuple(weight.shape)
    same = [size for size in value.shape if size != 1] == [size for size in shape if size != 1]
    return value.reshape(shape) if same else value


def from_archive(model: keras.Layer, group: Any) -> None:
    """Sets all weights from `model.weights.h5` in a `.keras` file of Keras 2.

    Args:
        model: A model or layer.
        group: Its group: its own weights in "vars", the layers of a model in "layers" or
            "_layer_checkpoint_dependencies", other layers inside under the attribute that holds them.
    """
    own = group.get("vars", {})
    if len(own) and not isinstance(model, keras.Model):
        set_values(model, [np.asarray(own[key]) for key in sorted(own, key=int)])
        return
    for key in group:
        if key in ("layers", "_layer_checkpoint_dependencies") and isinstance(model, keras.Model):
            for layer, part in _numbered(model, group[key]):
                from_archive(layer, part)
        elif key not in ("vars", "layers") and isinstance(getattr(model, key, None), keras.Layer):
            from_archive(getattr(model, key), group[key])


def _numbered(model: keras.Model, group: Any) -> list[tuple[keras.Layer, Any]]:
    """The layers of a model with their groups: `conv2d`, `conv2d_1`, ... in the order of the model."""
    taken: dict[str, int] = {}
    found = []
    for layer in model.layers:
        name = _snake(type(layer).__name__)
        count = taken.get(name, 0)
        taken[name] = count + 1
        key = f"{name}_{count}" if count else name
        if key in group:
            found.append((layer, group[key]))
        elif layer.weights:
            raise ValueError(f"The file has no weights for layer {layer.name!r} under {key!r}.")
    return found


def _snake(name: str) -> str:
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def from_checkpoint(model: keras.Model, values: Mapping[str, Callable[[], np.ndarray]]) -> None:
    """Sets all weights from the checkpoint of a SavedModel.

    Args:
        model: A model from `rebuilt`.
        values: Readers by path: "layer_with_weights-0/kernel", the attributes that lead to each variable.

    Raises:
        ValueError: If a variable is missing.
    """
    missing = {id(weight): weight.path for weight in model.weights}
    for path, read in values.items():
        owner: Any = model
        *parts, last = path.split("/")
        for part in parts:
            owner = _child(owner, part)
        weight = getattr(owner, _ATTRIBUTES.get((type(owner).__name__, last), last), None)
        if isinstance(weight, keras.Variable):
            weight.assign(_shaped(read(), weight))
            missing.pop(id(weight), None)
    if missing:
        raise ValueError(f"The file has no values for {sorted(missing.values())[:3]}.")
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


_ATTRIBUTES = {
    ("DepthwiseConv2D", "depthwise_kernel"): "kernel",
    ("DepthwiseConv1D", "depthwise_kernel"): "kernel",
    ("Normalization", "mean"): "adapt_mean",
    ("Normalization", "variance"): "adapt_variance",
}


def _child(owner: Any, part: str) -> Any:
    found = re.fullmatch(r"layer_with_weights-(\d+)", part)
    if found and isinstance(owner, keras.Model):
        layers = [layer for layer in owner.layers if layer.weights]
        return layers[int(found[1])] if int(found[1]) < len(layers) else None
    return getattr(owner, part, None)
