"""Which channels of a model stand and fall together, through residuals, concatenations, depthwise and gates.

Every channel that a layer makes gets a number. Layers that carry a channel on pass its number on; where two
tensors are added or multiplied, the numbers of each pair become one *unit*. A unit is the least that can be
removed. Channels that something unknown reads, and those of inputs and outputs, are fixed.
"""

from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias, final

import keras
import numpy as np

from tfopt._checks import message
from tfopt.compress._graph import Call, Graph
from tfopt.compress.slimming.rules import rule, weights

Numbers: TypeAlias = np.ndarray  # of int: the number of each channel


@final
class Channels:
    """The units of a graph.

    Args:
        graph: The model.
        exclude: Names or patterns of layers whose own channels all stay.

    Attributes:
        axes: id of a weight -> axis -> number of the channel of each entry.
        made: id of a weight -> the axis along which it makes channels.
        of: Index of a tensor -> the numbers of its channels.
        folded: id of a kernel -> the batch normalization behind it.
        whole: Names of layers with weights that cannot be cut, with their types.
    """

    def __init__(self, graph: Graph, exclude: Sequence[str] = ()) -> None:
        self.graph = graph
        self.axes: dict[int, dict[int, Numbers]] = defaultdict(dict)
        self.made: dict[int, int] = {}
        self.of: dict[int, Numbers] = {}
        self.folded: dict[int, keras.layers.BatchNormalization] = {}
        self.whole: dict[str, str] = {}
        self._parent: list[int] = []
        self._fixed: list[Numbers] = []
        for index in graph.inputs:
            self.of[index] = self._opaque(index)
        for call in graph.calls:
            self._follow(call)
        for index in graph.outputs:
            self._fixed.append(self.of[index])
        self._exclude(exclude)
        self.unit = np.array([self._find(number) for number in range(len(self._parent))])
        self.fixed: np.ndarray = np.zeros(len(self.unit), bool)
        for numbers in self._fixed:
            self.fixed[self.unit[numbers]] = True

    def groups(self) -> list[Numbers]:
        """The removable units, in arrays of those that the same weights make."""
        makers = defaultdict(list)
        for key, axis in self.made.items():
            for unit in np.unique(self.unit[self.axes[key][axis]]):
                makers[int(unit)].append(key)
        groups = defaultdict(list)
        for unit, keys in makers.items():
            if not self.fixed[unit]:
                groups[tuple(keys)].append(unit)
        return [np.array(units) for units in groups.values()]

    def fresh(self, count: int) -> Numbers:
        """Numbers for new channels."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def slices(self, variable: Any, axes: dict[int, Numbers], made: int | None = None) -> None:
        """Notes which channels the entries of a weight belong to; a weight used twice joins them."""
        for axis, numbers in axes.items():
            known = self.axes[id(variable)].setdefault(axis, numbers)
            self.join(known, numbers)
        if made is not None:
            self.made[id(variable)] = made

    def join(self, first: Numbers, second: Numbers) -> None:
        """Makes one unit of each pair of channels."""
        for a, b in zip(first, second):
            self._parent[self._find(int(b))] = self._find(int(a))

    def fix(self, numbers: Numbers) -> Numbers:
        """Keeps these channels."""
        self._fixed.append(numbers)
        return numbers

    def _find(self, number: int) -> int:
        while self._parent[number] != number:
            self._parent[number] = number = self._parent[self._parent[number]]
        return number

    def _follow(self, call: Call) -> None:
        outputs = rule(call)(self, call)
        if outputs is None:
            if weights(call):
                self.whole[call.name] = type(call.operation).__name__
            for index in call.inputs:
                self.fix(self.of[index])
            for index in call.outputs:
                self.of[index] = self._opaque(index)
        else:
            (index,) = call.outputs
            self.of[index] = outputs

    def _opaque(self, index: int) -> Numbers:
        return self.fix(self.fresh(self.graph.tensor(index).shape[-1] or 1))

    def _exclude(self, patterns: Sequence[str]) -> None:
        makers = {c.name: c for c in self.graph.calls if any(id(w) in self.made for w in weights(c))}
        for pattern in patterns:
            found = [call for name, call in makers.items() if fnmatchcase(name, pattern)]
            if not found:
                raise ValueError(
                    message("exclude", f"names of layers with channels: {list(makers)}", pattern)
                )
            for call in found:
                self.fix(self.of[call.outputs[0]])
