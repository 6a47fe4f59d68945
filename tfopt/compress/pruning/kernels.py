"""Which kernels of a model are pruned, clustered and trained sparsely, and by which names."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

import keras

from tfopt._checks import message
from tfopt._keras_internals import leaf_layers

PRUNABLE = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Dense)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)


def prunable_kernels(
    model: keras.Model, exclude: Sequence[str | keras.Layer] = ()
) -> dict[str, keras.Variable]:
    """Kernels of a built model's convolution and dense layers by layer name, without depthwise ones.

    Layers of nested models may have equal names: the later one has that of its model in front.
    """
    layers = _named(model)
    excluded = set()
    for entry in exclude:
        pattern = entry.name if isinstance(entry, keras.Layer) else entry
        itself = {name for name, layer in layers.items() if layer is entry}
        found = itself or {name for name in layers if fnmatchcase(name, pattern)}
        if not found:
            raise ValueError(
                message("exclude", f"names of layers that have kernels: {list(layers)}", pattern)
            )
        excluded |= found
    if not all(layer.built for layer in layers.values()):
        raise ValueError(
            "The model must be built before it is pruned. Call it on a batch or give it an `Input`."
        )
    if not layers.keys() - excluded:
        raise ValueError(
            f"No convolution or dense layer is left to compress. Found {list(layers)}, all excluded."
        )
    return {name: layer.kernel for name, layer in layers.items() if name not in excluded}


def _named(model: keras.Model) -> dict[str, keras.Layer]:
    owners, layers = dict(_owners(model)), {}
    for layer in leaf_layers(model):
        if isinstance(layer, PRUNABLE) and not isinstance(layer, DEPTHWISE):
            name = layer.name
            while name in layers:
                name = f"{owners.get(id(layer), model.name)}_{name}"
            layers[name] = layer
    return layers


def _owners(model: keras.Model) -> Iterator[tuple[int, str]]:
    """The name of the model that each layer is in."""
    for layer in model.layers:
        yield id(layer), model.name
        if isinstance(layer, keras.Model):
            yield from _owners(layer)
