"""Sums that hide scores from a softmax, as a user's own attention writes them, without the large number.

`scores + (1 - mask) * -1e9` gives int8 the scale of 1e9. Here the mask is read off the sum, and a number just
below the smallest score of the row takes the place of the large one (`attention.hidden`).
"""

from dataclasses import dataclass
from typing import Any, final

import keras
import numpy as np

from tfopt.compress._clone import cloned, new_layer
from tfopt.compress._graph import Call, Graph, Ref
from tfopt.compress.quantization.attention import HUGE, hidden, is_softmax
from tfopt.compress.quantization.rules import operation_name

L = keras.layers
ops = keras.ops
_SUMS = {"Add": 1.0, "Subtract": -1.0}  # of operations and layers: the sign of the second term
# What moves values and changes none of them.
_MOVES = (
    *(
        "Reshape",
        "ExpandDims",
        "Squeeze",
        "Transpose",
        "Permute",
        "Swapaxes",
        "Moveaxis",
        "GetItem",
        "Repeat",
    ),
    *("RepeatVector", "Tile", "BroadcastTo", "Identity", "Copy", "ConvertToTensor", "StopGradient"),
)
_AROUND = (*_MOVES, "Cast", "Dropout")  # may stand between the sum and the softmax


def hides_by_sums(graph: Graph) -> bool:
    """Whether a sum in front of a softmax may hide scores."""
    return any(_joins(call) and _meets_softmax(graph, call) for call in graph.calls)


def with_chosen_scores(graph: Graph) -> keras.Model | None:
    """A copy of the model in which such sums are choices; None if it has none."""
    if not hides_by_sums(graph):
        return None
    sums = _Sums(graph)
    model = cloned(graph, new_layer, sums.instead)
    return model if sums.found else None


@final
@dataclass(frozen=True)
class _Line:
    """The values `slope * tensor + start` of a tensor, or `start` everywhere without one."""

    tensor: Any
    slope: float
    start: float

    def moved(self, factor: float, summand: float = 0.0) -> "_Line":
        """This, times a number, plus a number."""
        return _Line(self.tensor, self.slope * factor, self.start * factor + summand)

    def kept(self) -> Any:
        """Where a mask of zeros and ones hides nothing; None if it is no such mask."""
        at_zero, at_one = (number > -HUGE / 2 for number in (self.start, self.start + self.slope))
        if self.tensor is None or at_zero == at_one:
            return None
        if self.tensor.dtype == "bool":
            return self.tensor if at_one else ops.logical_not(self.tensor)
        middle = 0.5 if "float" in self.tensor.dtype else int(at_zero)
        return ops.greater(self.tensor, middle) if at_one else ops.less(self.tensor, middle)


@final
class _Sums:
    """Gives `cloned` what takes the place of sums that hide scores."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.found = False
        self._tensors: dict[int, Any] = {}
        self._lines: dict[int, _Line] = {}

    def instead(self, call: Call, args: tuple, kwargs: dict) -> Any:
        """The scores as a choice by the mask; None for every other call."""
        leaves = keras.tree.flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)]
        self._tensors.update(zip(call.inputs, tensors))
        if not _joins(call) or not _meets_softmax(self.graph, call):
            return None
        rest, kept = self._parted(call)
        if rest is None or not kept:
            return None
        self.found = True
        mask = kept[0]
        for other in kept[1:]:
            mask = ops.logical_and(mask, other)
        return hidden(rest, mask)

    def _parted(self, call: Call, sign: float = 1.0) -> tuple[Any, list[Any]]:
        """The sum without what hides (None if that is all), and where nothing is hidden."""
        terms = _terms(call)
        if operation_name(call.operation) == "Where":
            return self._chosen(*terms) if sign > 0 else (None, [])
        rest, found = None, []
        for term, own in zip(terms, (sign, sign * _SUMS[operation_name(call.operation)])):
            value, kept = self._term(term, own)
            found += kept
            if value is not None:
                rest = value if rest is None else ops.add(rest, value)
        return rest, found

    def _chosen(self, mask: Any, first: Any, second: Any) -> tuple[Any, list[Any]]:
        """`where(mask, scores, -1e9 * ones_like(scores))`, or with both turned around."""
        if not isinstance(mask, Ref):
            return None, []
        condition = self._tensors[mask.index]
        for scores, number, kept in (
            (first, second, lambda: condition),
            (second, first, lambda: ops.logical_not(condition)),
        ):
            line = self._line(number)
            if isinstance(scores, Ref) and line is not None and line.tensor is None and line.start <= -HUGE:
                return self._tensors[scores.index], [kept()]
        return None, []

    def _term(self, term: Any, sign: float) -> tuple[Any, list[Any]]:
        """A term, times a sign, without what hides, and where it does not."""
        if not isinstance(term, Ref):
            values = np.asarray(term, "float32")
            kept = values * sign > -HUGE
            if kept.all() or not kept.any():
                return values * np.float32(sign), []
            shown = np.where(kept, values * sign, 0.0).astype("float32")
            return (shown if shown.any() else None), [kept]
        line = self._line(term)
        mask = None if line is None else line.moved(sign).kept()
        if mask is not None:
            return None, [mask]
        call = self.graph.producer.get(term.index)
        if call is not None and _joins(call):
            rest, found = self._parted(call, sign)
            if found:
                return rest, found
        tensor = self._tensors[term.index]
        return (tensor if sign > 0 else ops.negative(tensor)), []

    def _line(self, term: Any) -> _Line | None:
        """A term as a number times a tensor that is no such product itself; None for arrays."""
        if not isinstance(term, Ref):
            is_number = np.size(term) == 1 and np.asarray(term).dtype.kind in "iufb"
            return _Line(None, 0.0, float(np.asarray(term).reshape(-1)[0])) if is_number else None
        if term.index not in self._lines:
            call, own = self.graph.producer.get(term.index), _Line(self._tensors[term.index], 1.0, 0.0)
            made = None if call is None or len(call.outputs) != 1 else self._made_by(call)
            self._lines[term.index] = made or own
        return self._lines[term.index]

    def _made_by(self, call: Call) -> _Line | None:
        name, terms = operation_name(call.operation), _terms(call)
        if name in ("OnesLike", "ZerosLike"):
            return _Line(None, 0.0, float(name == "OnesLike"))
        first = self._line(terms[0]) if terms else None
        if first is None:
            return None
        if name in ("Cast", "Negative") or isinstance(call.operation, L.Rescaling):
            return _of_one(call, name, first)
        if name in _MOVES and len(call.inputs) == 1:
            return self._moved(call, first)
        second = self._line(terms[1]) if len(terms) > 1 else None
        if second is None:
            return None
        if name == "FullLike":
            return second if second.tensor is None else None
        if name == "Where" and len(terms) == 3:
            return _of_choice(first, second, self._line(terms[2]))
        return _of_two(name, first, second)

    def _moved(self, call: Call, line: _Line) -> _Line:
        if line.tensor is None:
            return line
        operation = call.operation
        if isinstance(operation, L.Layer):
            operation = new_layer(operation, f"{call.name}_{call.outputs[0]}")
        args, kwargs = keras.tree.map_structure(
            lambda leaf: line.tensor if isinstance(leaf, Ref) else leaf, (call.args, call.kwargs)
        )
        return _Line(operation(*args, **kwargs), line.slope, line.start)


def _of_one(call: Call, name: str, line: _Line) -> _Line | None:
    if name == "Negative":
        return line.moved(-1.0)
    if name == "Cast":
        return line if "float" in str(call.operation.dtype) else None
    scale, offset = call.operation.scale, call.operation.offset
    return line.moved(float(scale), float(offset)) if np.size(scale) == np.size(offset) == 1 else None


def _of_choice(mask: _Line, yes: _Line, no: _Line | None) -> _Line | None:
    if no is None or not (yes.tensor is no.tensor is None) or (mask.slope, mask.start) != (1.0, 0.0):
        return None
    return _Line(mask.tensor, yes.start - no.start, no.start)


def _of_two(name: str, first: _Line, second: _Line) -> _Line | None:
    """A sum or product of which one side at least is a number."""
    if name in ("TrueDivide", "Divide"):
        return first.moved(1.0 / second.start) if second.tensor is None and second.start else None
    if name not in ("Add", "Subtract", "Multiply") or (
        first.tensor is not None and second.tensor is not None
    ):
        return None
    if name == "Subtract":
        second = second.moved(-1.0)
    line, number = (first, second) if second.tensor is None else (second, first)
    return line.moved(number.start) if name == "Multiply" else line.moved(1.0, number.start)


def _terms(call: Call) -> list[Any]:
    """What a call joins: references and constants; a layer takes them as one list."""
    values = [*call.args, *call.kwargs.values()]
    return [*values[0]] if len(values) == 1 and isinstance(values[0], list | tuple) else values


def _joins(call: Call) -> bool:
    name, terms = operation_name(call.operation), _terms(call)
    return (
        len(call.outputs) == 1 and len(terms) == (3 if name == "Where" else 2) and name in (*_SUMS, "Where")
    )


def _meets_softmax(graph: Graph, call: Call) -> bool:
    """Whether a softmax over the last axis is all that takes the result."""
    (output,) = call.outputs
    following = graph.consumers[output]
    if not following or output in graph.outputs:
        return False
    return all(is_softmax(each.operation) or _leads_to_softmax(graph, each, output) for each in following)


def _leads_to_softmax(graph: Graph, call: Call, source: int) -> bool:
    """Whether it keeps the last axis, and a softmax takes the result."""
    if len(call.outputs) != 1 or operation_name(call.operation) not in _AROUND:
        return False
    last = (graph.tensor(index).shape[-1] for index in (source, call.outputs[0]))
    return len(set(last)) == 1 and _meets_softmax(graph, call)
