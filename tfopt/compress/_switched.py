"""A copy of a model in which single kernels and single activations can be disturbed, one trace for all."""

from collections.abc import Sequence
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from tfopt.compress._graph import Call, Graph
from tfopt.compress.quantization import FakeQuantize, quantize_aware
from tfopt.compress.quantization.rules import AFFINE, WEIGHTED

_PLAIN: dict[type, Any] = {quantized: plain for plain, quantized in {**WEIGHTED, **AFFINE}.items()}


@final
class Switch(keras.layers.Layer):
    """Rounds to 256 levels of the range it has measured if it is on; else passes its input.

    Args:
        fixed: A fixed range, or None to measure it.
    """

    def __init__(self, fixed: tuple[Any, Any] | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        low, high = fixed or (0.0, 0.0)
        self.low, self.high, self.on = tf.Variable(low), tf.Variable(high), tf.Variable(False)
        self.measuring = fixed is None

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Measures, rounds or passes."""
        if self.measuring and tf.executing_eagerly():
            self.low.assign(tf.minimum(self.low, tf.reduce_min(inputs)))
            self.high.assign(tf.maximum(self.high, tf.reduce_max(inputs)))
            return inputs
        rounded = tf.quantization.fake_quant_with_min_max_vars
        return tf.cond(self.on, lambda: rounded(inputs, self.low, self.high), lambda: tf.identity(inputs))

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Same shape and type."""
        return keras.KerasTensor(inputs.shape, dtype=inputs.dtype)


@final
class Switched:
    """The float model, and what `quantize_aware` would round in it, by the names that `skip=` takes.

    Args:
        model: A model that `quantize_aware` takes.
        skip: Layers that are never rounded.
        batches: Inputs, to measure the ranges of activations.
    """

    def __init__(self, model: keras.Model, skip: Sequence[str], batches: list[np.ndarray]) -> None:
        self.layers: dict[str, Any] = {}
        self.switches: dict[str | None, list[Switch]] = {}  # None: of the inputs, never on
        graph = Graph(quantize_aware(model, skip=skip))
        names = sorted((call.name for call in Graph(model).calls), key=len, reverse=True)
        self._owner = lambda range_name: next((name for name in names if range_name.startswith(name)), None)
        self.model = graph.replay(self._run)
        for call in graph.calls:
            if call.name in self.layers:
                layer = self.layers[call.name]
                layer.set_weights(call.operation.get_weights()[: len(layer.weights)])
        weighted = tuple(WEIGHTED)
        kernels = [name for name, layer in self.layers.items() if isinstance(layer, weighted)]
        self.kernels = {name: self.layers[name].kernel for name in kernels}
        for inputs in batches:
            self.model(inputs)
        self._function = tf.function(lambda x: self.model(x, training=False), reduce_retracing=True)

    def predict(self, batches: list[np.ndarray]) -> np.ndarray:
        """Outputs for all batches."""
        return np.concatenate([self._function(tf.constant(inputs)).numpy() for inputs in batches])

    def switch(self, name: str, on: bool) -> None:
        """Rounds, or no longer rounds, the activations that belong to a layer."""
        for switch in self.switches.get(name, ()):
            switch.on.assign(on)

    def _run(self, call: Call, args: tuple, kwargs: dict) -> Any:
        operation = call.operation
        if isinstance(operation, FakeQuantize):
            fixed = None if operation.minimum is None else (operation.minimum, operation.maximum)
            switch = Switch(fixed, name=call.name)
            self.switches.setdefault(self._owner(call.name), []).append(switch)
            return switch(*args)
        if not isinstance(operation, keras.layers.Layer):
            return operation(*args, **kwargs)
        if call.name not in self.layers:
            kind = _PLAIN.get(type(operation), type(operation))
            config = {**kind.get_config(operation), "name": call.name}
            self.layers[call.name] = kind.from_config(config)
        return self.layers[call.name](*args, **kwargs)
