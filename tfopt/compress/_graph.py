"""A Functional model as a flat list of calls, nested models opened, which can be replayed with changes.

Replaying makes new layers: the original model is never touched. A caller may have layers opened too: it gives
a function that returns a small model which computes what the layer does.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any, final

import keras

from tfopt._keras_internals import functional, mask_of, node_of, nodes
from tfopt._named_outputs import with_output_names
from tfopt.compress._ports import check_model


@final
@dataclass(frozen=True)
class Ref:
    """Stands for a tensor in the arguments of a call."""

    index: int


@final
@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer or operation; in its arguments a `Ref` stands for each tensor."""

    operation: Any
    name: str
    args: tuple
    kwargs: dict[str, Any]
    outputs: tuple[int, ...]

    @property
    def inputs(self) -> list[int]:
        """Indices of the tensors it takes."""
        leaves = keras.tree.flatten((self.args, self.kwargs))
        return [leaf.index for leaf in leaves if isinstance(leaf, Ref)]


Opener = Callable[["Call", list[keras.KerasTensor], list[Any]], keras.Model | None]


@final
class Graph:
    """The calls of a model in the order in which they run.

    Args:
        model: A Functional or built Sequential model, with models of these kinds nested in it.
        opener: `opener(call, tensors, masks)` returns a Functional model that computes what a call of a layer
            or operation computes of its tensors, or None. The calls in it take the place of the call. A mask,
            or None, belongs to each tensor; the model takes none of them or all behind the tensors.

    Raises:
        ValueError: If the model, or one nested in it, is subclassed or not built and `opener` does not
        open it.
    """

    def __init__(self, model: keras.Model, opener: Opener | None = None) -> None:
        check_model(model)
        self.model = functional(model)
        self.calls: list[Call] = []
        self._opener = opener
        self._prefix = ""
        self._operations: list[Any] = []
        self._index: dict[int, int] = {}
        self._names: dict[int, str] = {}
        self._alive: list[Any] = []
        self.inputs = [self._number(tensor) for tensor in self._tensors(self.model, "inputs")]
        self._trace(self.model, training=None)
        self.outputs = [self._index[id(tensor)] for tensor in self.model.outputs]
        self.producer = {index: call for call in self.calls for index in call.outputs}
        self.consumers: dict[int, list[Call]] = defaultdict(list)
        for call in self.calls:
            for index in call.inputs:
                self.consumers[index].append(call)

    def replay(self, run: Callable[[Call, tuple, dict], Any], source: Callable | None = None) -> keras.Model:
        """Builds a new model by running `run(call, args, kwargs)` for each call, on new inputs.

        Args:
            run: Returns the outputs of a call, as the call itself would.
            source: `source(tensor, index)`, what to do first with every input tensor.
        """
        inputs = [
            keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)
            for tensor in self.model.inputs
        ]
        tensors = {i: source(x, i) if source else x for i, x in zip(self.inputs, inputs)}

        def fill(leaf: Any) -> Any:
            return tensors[leaf.index] if isinstance(leaf, Ref) else leaf

        with warnings.catch_warnings():
            # Keras says of each layer that it drops a mask, and has said so when the model was built.
            warnings.filterwarnings("ignore", ".*was passed an input with a mask attached to it")
            for call in self.calls:
                args, kwargs = keras.tree.map_structure(fill, (call.args, call.kwargs))
                results = keras.tree.flatten(run(call, args, kwargs))
                tensors.update(zip(call.outputs, results))
        outputs = [tensors[index] for index in self.outputs]
        replayed = keras.Model(
            keras.tree.pack_sequence_as(self.model.input, inputs),
            keras.tree.pack_sequence_as(self.model.output, outputs),
            name=self.model.name,
        )
        return with_output_names(replayed, self.model.output_names)

    def tensor(self, index: int) -> keras.KerasTensor:
        """Shape and data type of a tensor of the model."""
        return self._alive[index - 1]

    def _tensors(self, model: keras.Model, which: str) -> list:
        if not nodes(model):
            raise ValueError(
                "`model` must be a Functional or a built Sequential model, and so must those nested in it. "
                f"Received: {model.name!r} of type {type(model).__name__}, built={model.built}. Call it on a "
                "batch first; if it is subclassed, use `keras.Model(inputs, model.call(inputs))` in its "
                "place, with `inputs = keras.Input(shape)`."
            )
        return getattr(functional(model), which)

    def _number(self, tensor: Any) -> int:
        self._alive.append(tensor)  # an id is unique only while its tensor lives
        self._index[id(tensor)] = index = len(self._alive)
        return index

    def _trace(self, model: keras.Model, training: bool | None) -> None:
        for node in nodes(model):
            operation, arguments = node.operation, node.arguments
            if node.is_input or isinstance(operation, keras.layers.InputLayer):
                continue
            args, kwargs = arguments.args, {k: v for k, v in arguments.kwargs.items() if v is not None}
            if isinstance(operation, keras.Model) and nodes(operation):
                self._enter(operation, args[0], kwargs.get("training", training), node.outputs)
                continue
            if training is not None and "training" in signature(operation.call).parameters:
                kwargs.setdefault("training", training)
            self._append(operation, model, args, kwargs, node.outputs)

    def _append(self, operation: Any, model: keras.Model, args: tuple, kwargs: dict, outputs: list) -> None:
        """Adds a call, or the calls of the model that the opener gives for it."""
        name = self._name(operation, model)
        refs: Any = keras.tree.map_structure(self._ref, (args, kwargs))
        if self._opener is not None:
            call = Call(operation, name, refs[0], refs[1], ())
            leaves = keras.tree.flatten((args, kwargs))
            tensors = [leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)]
            masks = [mask_of(tensor) for tensor in tensors]
            inside = self._opener(call, [self.tensor(index) for index in call.inputs], masks)
            if inside is not None:
                if len(inside.inputs) > len(tensors):
                    tensors += [mask for mask in masks if mask is not None]
                    self._reach(tensors)
                outside, self._prefix = self._prefix, name
                self._enter(inside, tensors, kwargs.get("training"), outputs)
                self._prefix = outside
                return
        elif isinstance(operation, keras.Model):
            self._tensors(operation, "inputs")  # raises: nobody knows what is inside
        numbers = tuple(self._number(tensor) for tensor in outputs)
        self.calls.append(Call(operation, name, refs[0], refs[1], numbers))

    def _reach(self, tensors: list) -> None:
        """Adds the calls that compute masks: those that no layer takes as an argument are in no model."""
        for tensor in tensors:
            if id(tensor) in self._index:
                continue
            node = node_of(tensor)
            args, kwargs = (
                node.arguments.args,
                {k: v for k, v in node.arguments.kwargs.items() if v is not None},
            )
            leaves = keras.tree.flatten((args, kwargs))
            self._reach([leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)])
            self._append(node.operation, self.model, args, kwargs, node.outputs)

    def _enter(self, model: keras.Model, inputs: Any, training: bool | None, outputs: list) -> None:
        """Inlines a model: its inputs and outputs become the tensors outside."""
        for inner, outer in zip(self._tensors(model, "inputs"), keras.tree.flatten(inputs)):
            self._alive.append(inner)
            self._index[id(inner)] = self._index[id(outer)]
        self._trace(model, training)
        for inner, outer in zip(self._tensors(model, "outputs"), outputs):
            self._alive.append(outer)
            self._index[id(outer)] = self._index[id(inner)]

    def _ref(self, leaf: Any) -> Any:
        return Ref(self._index[id(leaf)]) if isinstance(leaf, keras.KerasTensor) else leaf

    def _name(self, operation: Any, model: keras.Model) -> str:
        """The layer's own name, with that of the nested model or the opened layer in front if need be."""
        if id(operation) not in self._names:
            self._operations.append(operation)  # an id is unique only while its operation lives
            taken, name = set(self._names.values()), operation.name
            if self._prefix:
                name = self._prefix if name == "main" else f"{self._prefix}_{name}"
                base, count = name, 1
                while name in taken - {self._prefix}:
                    name, count = f"{base}_{count}", count + 1
            while not self._prefix and name in taken:
                name = f"{model.name}_{name}"
            self._names[id(operation)] = name
        return self._names[id(operation)]
