"""Runs any model with single kernels and single outputs disturbed, by what its layers do when they are
called.

Nothing is rebuilt: while a `Called` is open, the `call` of each layer also measures or rounds what it
returns. So subclassed models and layers of one's own work like built-in ones. `close` takes it away again.
"""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from tfopt._checks import message
from tfopt._keras_internals import nodes
from tfopt.compress._graph import Graph
from tfopt.compress._kernels import Kernel, kernels, layer_paths
from tfopt.compress._layouts import Layout

L = keras.layers

# What they return has the values, or means of values, of what they take: int8 rounds nothing there.
SAME_VALUES = (
    *(L.InputLayer, L.Flatten, L.Reshape, L.Permute, L.RepeatVector, L.Identity, L.Masking),
    *(L.Dropout, L.SpatialDropout1D, L.SpatialDropout2D, L.SpatialDropout3D, L.AlphaDropout),
    *(L.GaussianNoise, L.GaussianDropout, L.ActivityRegularization, L.Embedding),
    *(L.ZeroPadding1D, L.ZeroPadding2D, L.ZeroPadding3D, L.Cropping1D, L.Cropping2D, L.Cropping3D),
    *(L.MaxPooling1D, L.MaxPooling2D, L.MaxPooling3D, L.UpSampling1D, L.UpSampling2D, L.UpSampling3D),
    *(L.AveragePooling1D, L.AveragePooling2D, L.AveragePooling3D),
)


@final
class Called:
    """A model whose layers can be disturbed one at a time.

    Args:
        model: Any built model; it computes as before once this is closed.
        batches: Inputs, as the model takes them, to measure the ranges of outputs.
        skip: Names or patterns of layers that are never rounded.
    """

    def __init__(self, model: keras.Model, batches: Sequence[Any], skip: Sequence[str] = ()) -> None:
        self.model = model
        self.kernels: dict[str, list[Kernel]] = {}  # by the layer whose output is rounded with them
        tops = {}
        for path in layer_paths(model):
            top = next((layer for layer in path if not isinstance(layer, keras.Model)), None)
            if top is not None and not isinstance(top, SAME_VALUES):
                tops[id(top)] = top
        names = _unique(list(tops.values()))
        for kernel in kernels(model):
            top = next((layer for layer in kernel.path if not isinstance(layer, keras.Model)), model)
            self.kernels.setdefault(names.get(id(top), kernel.name), []).append(kernel)
        skipped = _matching(set(names.values()) | {x.name for x in model.layers}, skip)
        self.names = [name for name in names.values() if name not in skipped]
        self._switches = {
            names[key]: _Switch(layer) for key, layer in tops.items() if names[key] in self.names
        }
        fused = _fused(model)
        try:
            for name, switch in self._switches.items():
                switch.attach(id(tops[_key(names, name)]) in fused)
            for inputs in batches:
                self.model(inputs, training=False)
        except BaseException:
            self.close()
            raise
        for switch in self._switches.values():
            switch.measuring = False
        self._function = tf.function(lambda x: self.model(x, training=False), reduce_retracing=True)

    def predict(self, batches: Sequence[Any]) -> list[np.ndarray]:
        """All outputs of the model, flattened into a list, for all batches."""
        parts = [[np.asarray(y) for y in keras.tree.flatten(self._function(x))] for x in batches]
        return [np.concatenate(output).astype(np.float64) for output in zip(*parts)]

    def round_outputs(self, name: str, on: bool) -> None:
        """Rounds, or no longer rounds, what a layer returns."""
        if name in self._switches:
            self._switches[name].on.assign(on)

    def close(self) -> None:
        """Gives the layers their own `call` back."""
        for switch in self._switches.values():
            switch.detach()


class _Switch:
    """Measures what a layer returns, then rounds it to 256 levels of that range if it is on."""

    def __init__(self, layer: keras.Layer) -> None:
        self.layer, self.on, self.measuring = layer, tf.Variable(False), True
        self.low, self.high = tf.Variable(0.0), tf.Variable(0.0)

    def attach(self, fused: bool) -> None:
        """Puts itself around the layer's `call`; nothing is rounded that the next layer rounds."""
        original = self.layer.call

        def call(*args: Any, **kwargs: Any) -> Any:
            outputs = original(*args, **kwargs)
            return outputs if fused else keras.tree.map_structure(self._passed, outputs)

        vars(self.layer)["call"] = call  # past Keras's `__setattr__`, which would track it

    def detach(self) -> None:
        """Takes itself away."""
        vars(self.layer).pop("call", None)

    def _passed(self, value: Any) -> Any:
        if not tf.is_tensor(value) or not value.dtype.is_floating:
            return value
        numbers = tf.cast(value, tf.float32)
        if self.measuring:
            self.low.assign(tf.minimum(self.low, tf.reduce_min(numbers)))
            self.high.assign(tf.maximum(self.high, tf.reduce_max(numbers)))
            return value
        rounded: Callable = tf.quantization.fake_quant_with_min_max_vars
        changed = tf.cond(self.on, lambda: rounded(numbers, self.low, self.high), lambda: numbers)
        return tf.cast(changed, value.dtype)


def rounded(kernel: Kernel) -> np.ndarray:
    """On the grid -127..127: of each output channel, of the whole for dense layers, as int8 files have it."""
    value, layout = np.asarray(kernel.variable.numpy()), kernel.layout
    scale = np.maximum(
        np.abs(value).max(axis=_reduced(kernel.layer, layout, value.ndim), keepdims=True), 1e-8
    )
    return np.round(value / scale * 127) * scale / 127


def _reduced(layer: keras.Layer, layout: Layout, rank: int) -> tuple[int, ...]:
    one_scale = isinstance(layer, L.Dense | L.Embedding) or layout.weight not in (
        "kernel",
        "pointwise_kernel",
    )
    kept = () if one_scale and layout.inputs else {axis % rank for axis in layout.outputs}
    return tuple(axis for axis in range(rank) if axis not in kept)


def _fused(model: keras.Model) -> set[int]:
    """Layers after which int8 rounds nothing, because the batch norm or ReLU behind becomes a part of
    them."""
    if not nodes(model):
        return set()
    try:
        graph = Graph(model)
    except ValueError:  # a subclassed model is nested in it
        return set()
    found = set()
    for call in graph.calls:
        readers = graph.consumers[call.outputs[0]]
        if len(readers) == 1 and call.outputs[0] not in graph.outputs:
            reader, weighted = readers[0].operation, hasattr(call.operation, "kernel")
            norm = (
                isinstance(reader, L.BatchNormalization)
                and weighted
                and not isinstance(call.operation, L.Dense)
            )
            relu = isinstance(reader, L.ReLU) or getattr(reader, "activation", None) is keras.activations.relu
            relu = relu and not hasattr(reader, "kernel")
            if norm or (relu and (weighted or isinstance(call.operation, L.Add | L.BatchNormalization))):
                found.add(id(call.operation))
    return found


def _unique(layers: list[keras.Layer]) -> dict[int, str]:
    names: dict[int, str] = {}
    for layer in layers:
        name, count = layer.name, 1
        while name in names.values():
            count += 1
            name = f"{layer.name}_{count}"
        names[id(layer)] = name
    return names


def _key(names: dict[int, str], name: str) -> int:
    return next(key for key, value in names.items() if value == name)


def _matching(names: set[str], skip: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for pattern in skip:
        fits = {name for name in names if fnmatchcase(name, pattern)}
        if not fits:
            raise ValueError(message("skip", f"names of layers: {sorted(names)}", pattern))
        found |= fits
    return found
