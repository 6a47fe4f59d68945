"""Replays the calls of a graph with rounded weights and activations."""

from collections.abc import Mapping
from typing import Any, final

import keras
import numpy as np

from tfopt.compress._clone import new_layer
from tfopt.compress._graph import Call, Graph
from tfopt.compress.quantization import rules
from tfopt.compress.quantization.activations import PROBABILITY, RELUS, Ranged, activation, elu
from tfopt.compress.quantization.ends import grid, moved
from tfopt.compress.quantization.layers import FakeQuantize
from tfopt.compress.quantization.operations import ALMOST_ONE, StayFloat
from tfopt.compress.quantization.preserve import Kept

L = keras.layers
EXTREMES = {"momentum": 1.0}  # ranges of inputs, and of what is nothing but a rescaled input


@final
class Quantizer:
    """Gives `Graph.replay` the rounded form of every call.

    Args:
        graph: The model, opened.
        skip: Names of calls and inputs to leave in float.
        scheme: Layers of the user's by the layer that they replace.
        kept: What kernels must keep, by name.
        input_ranges: Fixed ranges of inputs, by name.

    Attributes:
        clones: The new layers by name.
        floats: What is computed in float for want of an integer kernel.
    """

    def __init__(
        self,
        graph: Graph,
        skip: set[str],
        scheme: dict[type, type],
        kept: dict[str, Kept],
        input_ranges: Mapping[str, tuple[float, float]],
    ) -> None:
        self.graph, self.skip, self.scheme, self.kept = graph, skip, scheme, kept
        self.input_ranges = input_ranges
        self.clones: dict[str, keras.Layer] = {}
        self.floats: list[str] = []
        self._uses: dict[str, int] = {}
        self._ranges: dict[str, int] = {}
        self._ends: dict[int, tuple[float, float] | None] = {}  # of inputs and rescaled inputs; None: learned
        self._unrounded: set[int] = set()  # tensors that are rounded only after the call that follows

    def source(self, tensor: keras.KerasTensor, index: int) -> keras.KerasTensor:
        """Rounds an input of the model, unless it holds indices."""
        name, consumers = tensor.name, self.graph.consumers[index]
        exact = [call for call in consumers if rules.operation_name(call.operation) in rules.LOOKUPS]
        if name in self.skip or exact or not any(self._in_integers(call) for call in consumers):
            return tensor
        self._ends[index] = ends = self.input_ranges.get(name)
        if "float" not in tensor.dtype:  # the numbers stay exact; what is computed of them is rounded
            tensor = keras.ops.cast(tensor, "float32")
        limits = EXTREMES if ends is None else {"minimum": min(ends[0], 0.0), "maximum": max(ends[1], 0.0)}
        return self._ranged(tensor, name, watch=True, **limits)

    def run(self, call: Call, args: tuple, kwargs: dict) -> Any:
        """The outputs of a call, rounded where TFLite rounds."""
        layer, name = call.operation, self._name(call)
        lacking = rules.computes_in_float(call)
        if call.name in self.skip:
            stop = lacking is None or type(layer) in rules.HALF_KERNELS
            return self._in_float(call, self._layer(call)(*args, **kwargs), stop)
        if type(layer) in self.scheme:
            return self._ranged(self._layer(call, self.scheme[type(layer)])(*args, **kwargs), name)
        if lacking is not None:
            if any("float" in self.graph.tensor(index).dtype for index in call.outputs):
                self.floats.append(lacking)
            if not (type(layer) in rules.WEIGHTED and "activation" in lacking):
                stop = type(layer) in rules.HALF_KERNELS
                return self._in_float(call, self._layer(call)(*args, **kwargs), stop)
        if rules.keeps_range(call):
            self._pass_ends(call)
            return self._layer(call)(*args, **kwargs)
        if type(layer) in rules.WEIGHTED:
            return self._weighted(call, name, args)
        if isinstance(layer, L.Rescaling) and self._rescales_input(call):
            return self._rescaled(call, name, *args)
        ranged = self._ranged_unless_fused(call, name)
        if rules.is_concatenation(layer) and self._has_mixed_parts(call):
            (args, kwargs), ranged = self._round_parts(call, args, kwargs), self._ranged
        if isinstance(layer, L.ELU) or rules.operation_name(layer) == "Elu":
            return elu(args[0], name, ranged, alpha=layer.alpha)
        function = self._activation(layer, kwargs)
        if function is not None:
            return activation(function, args[0], name, ranged)
        if type(layer) in rules.AFFINE and not rules.folds(self.graph, call):
            kind = rules.AFFINE[type(layer)] if rules.is_per_channel(call, self.graph) else None
            return ranged(self._layer(call, kind)(*args, **kwargs), name)
        outputs = self._layer(call)(*args, **kwargs)
        return self._each(
            call, outputs, lambda output: ranged(output, name, **self._shifted_input(call, args))
        )

    def _activation(self, layer: Any, kwargs: dict) -> Any:
        """The function of a layer or operation that is an activation with a fixed or composed form."""
        if isinstance(layer, L.Activation):
            return layer.activation
        if isinstance(layer, L.Softmax):
            return (
                keras.activations.softmax if layer.axis == -1 and not kwargs.get("mask") is not None else None
            )
        function = (
            None if isinstance(layer, L.Layer) else rules.ACTIVATION_OPERATIONS.get(type(layer).__name__)
        )
        return None if getattr(layer, "axis", -1) not in (-1, None) else function

    def _weighted(self, call: Call, name: str, args: tuple) -> Any:
        function, kind = call.operation.activation, rules.WEIGHTED[type(call.operation)]
        ranged = self._ranged_unless_fused(call, name)
        if function in RELUS:
            return ranged(self._layer(call, kind)(*args), name)
        output = self._ranged(self._layer(call, kind, activation="linear")(*args), name)
        label = getattr(function, "__name__", type(function).__name__.lower())
        return activation(function, output, f"{name}_{label}", ranged)

    def _in_float(self, call: Call, outputs: Any, stop: bool) -> Any:
        """Outputs that were computed in float, rounded for those that go on in integers.

        Args:
            call: The call.
            outputs: Its outputs.
            stop: Whether the converter would compute it in integers if nothing stood between.
        """

        def handed_on(output: Any, index: int) -> Any:
            if not any(self._in_integers(following) for following in self.graph.consumers[index]):
                return output
            rounded = self._ranged(StayFloat()(output) if stop else output, call.name)
            if not self._meets_shared_scale(index):
                return rounded
            # The converter brings parts to one scale only if integer operations make them.
            same = L.Rescaling(ALMOST_ONE, name=f"{call.name}_in_integers_{index}")(rounded)
            return self._ranged(same, call.name)

        flat = keras.tree.flatten(outputs)
        handed = [
            handed_on(output, index) if "float" in output.dtype else output
            for output, index in zip(flat, call.outputs)
        ]
        return keras.tree.pack_sequence_as(outputs, handed)

    def _meets_shared_scale(self, index: int) -> bool:
        """Whether a tensor becomes, perhaps in another shape, a part of what has one scale."""
        return any(
            self._in_integers(call)
            and (
                rules.shares_scale(call.operation)
                or (rules.keeps_range(call) and any(map(self._meets_shared_scale, call.outputs)))
            )
            for call in self.graph.consumers[index]
        )

    def _in_integers(self, call: Call) -> bool:
        if call.name in self.skip:
            return False
        lacking = rules.computes_in_float(call)
        return (
            lacking is None or type(call.operation) in self.scheme or type(call.operation) in rules.WEIGHTED
        )

    def _layer(self, call: Call, kind: Any = None, **changes: Any) -> Any:
        if not isinstance(call.operation, L.Layer):
            return call.operation
        if call.name not in self.clones:
            keeping = self.kept[call.name].options if call.name in self.kept else {}
            self.clones[call.name] = new_layer(call.operation, call.name, kind, **changes, **keeping)
        return self.clones[call.name]

    def _each(self, call: Call, outputs: Any, ranged: Any) -> Any:
        return keras.tree.map_structure(lambda x: ranged(x) if "float" in x.dtype else x, outputs)

    def _name(self, call: Call) -> str:
        """The name of a call; a shared layer has ranges, and layers made of its activation, for each use."""
        self._uses[call.name] = count = self._uses.get(call.name, 0) + 1
        return call.name if count == 1 else f"{call.name}_{count}"

    def _ranged(self, output: Any, name: str, **limits: Any) -> Any:
        self._ranges[name] = count = self._ranges.get(name, 0) + 1  # one for each output of a call
        suffix = f"_{count}" if count > 1 else ""
        return FakeQuantize(name=f"{name}_range{suffix}", **limits)(output)

    def _ranged_unless_fused(self, call: Call, name: str) -> Ranged:
        following = rules.only_consumer(self.graph, call)
        fused = (
            following is not None and self._in_integers(following) and rules.fuses_forward(self.graph, call)
        )

        def ranged(output: Any, part: str, **limits: Any) -> Any:
            keep = fused and part == name and not limits
            if keep:
                self._unrounded.update(call.outputs)
            return output if keep else self._ranged(output, part, **limits)

        return ranged

    def _has_mixed_parts(self, call: Call) -> bool:
        """Whether some parts of a concatenation have a range and others wait for that of the whole."""
        return 0 < len(self._unrounded.intersection(call.inputs)) < len(set(call.inputs))

    def _round_parts(self, call: Call, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The arguments of a concatenation, each part with a range.

        The converter gives the whole the scale of the first part that has one: behind a sigmoid, or beside
        a tensor that is used elsewhere too, all larger numbers would be cut off.
        """
        indices = iter(call.inputs)

        def rounded(leaf: Any) -> Any:
            if not isinstance(leaf, keras.KerasTensor):
                return leaf
            index = next(indices)
            if index not in self._unrounded:
                return leaf
            return self._ranged(leaf, self.graph.producer[index].name)

        found: tuple[tuple, dict] = keras.tree.map_structure(rounded, (args, kwargs))
        return found

    def _pass_ends(self, call: Call) -> None:
        if call.inputs and call.inputs[0] in self._ends:
            self._ends.update(dict.fromkeys(call.outputs, self._ends[call.inputs[0]]))

    def _rescales_input(self, call: Call) -> bool:
        numbers = (call.operation.scale, call.operation.offset)
        return set(call.inputs) <= self._ends.keys() and all(np.ndim(number) == 0 for number in numbers)

    def _shifted_input(self, call: Call, args: tuple) -> dict[str, Any]:
        """The range of a sum or product of an input and constants, such as `x / 127.5 - 1`."""
        operation = rules.operation_name(call.operation)
        simple = operation in ("Add", "Subtract", "Multiply")
        if not simple or not call.inputs or not set(call.inputs) <= self._ends.keys():
            return {}
        ends = moved(self._ends[call.inputs[0]], operation, args)
        self._ends[call.outputs[0]] = ends
        return EXTREMES if ends is None else grid(*ends)

    def _rescaled(self, call: Call, name: str, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Rescaling of an input as the two integer kernels that TFLite has for it: a product and a sum."""
        scale, offset = float(call.operation.scale), float(call.operation.offset)
        ends = self._ends[call.inputs[0]]
        self._ends[call.outputs[0]] = None
        dtype = call.operation.dtype_policy
        product = L.Rescaling(scale, name=f"{name}_scale", dtype=dtype)(inputs)
        if ends is None:
            product = self._ranged(product, f"{name}_scale", **EXTREMES)
            return self._ranged(L.Rescaling(1.0, offset, name=name, dtype=dtype)(product), name, **EXTREMES)
        low, high = sorted(scale * end for end in (min(ends[0], 0.0), max(ends[1], 0.0)))
        product = self._ranged(product, f"{name}_scale", **grid(low, high))
        total = L.Rescaling(1.0, offset, name=name, dtype=dtype)(product)
        return self._ranged(total, name, **grid(low + offset, high + offset))


def softens(layer: FakeQuantize) -> bool:
    """Whether a range is that of probabilities."""
    return layer.maximum == PROBABILITY["maximum"]
