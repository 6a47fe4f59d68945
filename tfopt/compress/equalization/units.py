"""Which channels can be scaled together without changing what a model computes.

A channel that one layer makes can be divided by any positive number if all layers that read it multiply their
weights by that number, and if what lies between keeps scales: ReLU, leaky ReLU, PReLU, pooling, padding.
Channels that are added to each other share a number. Channels that anything else reads keep theirs.
"""

from collections.abc import Callable
from typing import Any, final

import keras
import numpy as np

from tfopt.compress._graph import Call, Graph
from tfopt.compress.slimming.rules import PASSING

L = keras.layers
A = keras.activations

READERS = (L.Conv1D, L.Conv2D, L.Conv2DTranspose, L.Dense)
DEPTHWISE = (L.DepthwiseConv1D, L.DepthwiseConv2D)
HOMOGENEOUS = (A.linear, A.relu, A.leaky_relu)
_PASSING = tuple(kind for kind in PASSING if kind not in (L.ELU, L.ReLU, L.Masking))
_MERGING = (L.Add, L.Subtract, L.Average, L.Maximum, L.Minimum)


@final
class Units:
    """The units of a graph: channels that have one scale.

    Args:
        graph: The model, batch normalizations folded where they can be.

    Attributes:
        of: Index of a tensor -> the unit of each of its channels.
        reads: Name of a layer -> the unit of each channel that its weights read.
        makes: Name of a layer -> the unit of each channel that its weights make.
        fixed: Of each unit, whether its scale stays 1.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.of: dict[int, np.ndarray] = {}
        self.reads: dict[str, np.ndarray] = {}
        self.makes: dict[str, np.ndarray] = {}
        self._parent: list[int] = []
        self._fixed: list[np.ndarray] = []
        for index in graph.inputs:
            self.of[index] = self._fix(self._fresh(graph.tensor(index).shape[-1] or 1))
        for call in graph.calls:
            self._follow(call)
        for index in graph.outputs:
            self._fix(self.of[index])
        roots = np.array([self._find(number) for number in range(len(self._parent))])
        self.fixed: np.ndarray = np.zeros(len(roots), bool)
        for numbers in self._fixed:
            self.fixed[roots[numbers]] = True
        for table in (self.of, self.reads, self.makes):
            for key, numbers in table.items():
                table[key] = roots[numbers]  # type: ignore[index]

    def _follow(self, call: Call) -> None:
        outputs = self._outputs(call) if len(call.outputs) == 1 else None
        if outputs is not None:
            self.of[call.outputs[0]] = outputs
            return
        for index in call.inputs:
            self._fix(self.of[index])
        for index in call.outputs:
            self.of[index] = self._fix(self._fresh(self.graph.tensor(index).shape[-1] or 1))

    def _outputs(self, call: Call) -> np.ndarray | None:
        """The numbers of a call's channels, or None if nothing is known about it."""
        kind: Any = type(call.operation)
        if not isinstance(call.operation, L.Layer):
            kind = kind.__name__ if len(call.args) == len(call.inputs) and not call.kwargs else None
        if getattr(call.operation, "data_format", "channels_last") not in ("channels_last", None):
            return None
        rules: list[tuple[tuple, Callable[[Call], np.ndarray | None]]] = [
            ((*READERS, *DEPTHWISE), self._weighted),
            ((L.BatchNormalization,), self._normalized),
            ((L.ReLU, L.LeakyReLU, L.PReLU, L.Activation), self._activated),
            ((*_PASSING, "Relu", "LeakyRelu"), self._passed),
            ((*_MERGING, "Add", "Subtract", "Maximum", "Minimum"), self._merged),
            ((L.Concatenate,), self._concatenated),
            ((L.Flatten,), self._flattened),
        ]
        found = next((rule for kinds, rule in rules if kind in kinds), None)
        return None if found is None else found(call)

    def _weighted(self, call: Call) -> np.ndarray | None:
        layer, inputs = call.operation, self.of[call.inputs[0]]
        if getattr(layer, "lora_enabled", False):
            return None
        outputs = self._fresh(self.graph.tensor(call.outputs[0]).shape[-1])
        self._note(self.reads, call, inputs)
        self._note(self.makes, call, outputs)
        return outputs if layer.activation in HOMOGENEOUS else self._fix(outputs)

    def _normalized(self, call: Call) -> np.ndarray | None:
        layer, inputs = call.operation, self.of[call.inputs[0]]
        rank = len(self.graph.tensor(call.inputs[0]).shape)
        if layer.axis not in (-1, rank - 1):
            return None
        outputs = self._fresh(len(inputs)) if layer.scale else inputs
        self._note(self.reads, call, inputs)
        self._note(self.makes, call, outputs)
        return outputs

    def _activated(self, call: Call) -> np.ndarray | None:
        layer = call.operation
        if isinstance(layer, L.Activation):
            return self._passed(call) if layer.activation in HOMOGENEOUS else None
        limited = isinstance(layer, L.ReLU) and (layer.max_value is not None or layer.threshold)
        return None if limited else self._passed(call)

    def _passed(self, call: Call) -> np.ndarray | None:
        return self.of[call.inputs[0]] if len(call.inputs) == 1 else None

    def _merged(self, call: Call) -> np.ndarray | None:
        first, *others = (self.of[index] for index in call.inputs)
        if not others or any(len(other) != len(first) for other in others):
            return None
        for other in others:
            self._join(first, other)
        return first

    def _concatenated(self, call: Call) -> np.ndarray | None:
        rank = len(self.graph.tensor(call.inputs[0]).shape)
        if call.operation.axis not in (-1, rank - 1):
            return None
        return np.concatenate([self.of[index] for index in call.inputs])

    def _flattened(self, call: Call) -> np.ndarray | None:
        places = self.graph.tensor(call.inputs[0]).shape[1:]
        if None in places:
            return None
        return np.broadcast_to(self.of[call.inputs[0]], places).reshape(-1)

    def _note(self, table: dict[str, np.ndarray], call: Call, numbers: np.ndarray) -> None:
        """The channels of a layer's weights; of one that is called twice they are the same ones."""
        self._join(table.setdefault(call.name, numbers), numbers)

    def _fresh(self, count: int) -> np.ndarray:
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def _fix(self, numbers: np.ndarray) -> np.ndarray:
        self._fixed.append(numbers)
        return numbers

    def _join(self, first: np.ndarray, second: np.ndarray) -> None:
        for a, b in zip(first, second):
            self._parent[self._find(int(b))] = self._find(int(a))

    def _find(self, number: int) -> int:
        while self._parent[number] != number:
            self._parent[number] = number = self._parent[self._parent[number]]
        return number


def layers_of(graph: Graph, units: Units, kinds: tuple) -> list[tuple[Any, str]]:
    """The layers of some kinds whose weights have units, each once, with their names in the graph."""
    found = {call.name: call.operation for call in graph.calls if type(call.operation) in kinds}
    return [(layer, name) for name, layer in found.items() if name in units.makes]


def spread(layer: Any, reads: np.ndarray, makes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each entry of the last two axes of a kernel reads and makes.

    Args:
        layer: One of `READERS` or `DEPTHWISE`.
        reads: A value for each input channel.
        makes: A value for each output channel.
    """
    shape = layer.kernel.shape[-2:]
    if isinstance(layer, DEPTHWISE):
        return np.broadcast_to(reads[:, None], shape), makes.reshape(shape)
    if isinstance(layer, L.Conv2DTranspose):
        return np.broadcast_to(reads[None], shape), np.broadcast_to(makes[:, None], shape)
    groups = reads.reshape(getattr(layer, "groups", 1), -1)
    reading = np.repeat(groups, len(makes) // len(groups), axis=0).T
    return reading, np.broadcast_to(makes[None], shape)
