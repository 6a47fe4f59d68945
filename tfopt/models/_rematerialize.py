"""Gradient checkpointing: activations are computed again in the backward pass instead of kept."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfopt import _checks
from tfopt._keras_internals import functional, nodes


@keras.saving.register_keras_serializable(package="tfopt")
class Rematerialized(keras.layers.Layer):
    """Part of a model whose activations are computed again in the backward pass.

    What the part changes while it runs (moving statistics of batch normalization, the seeds of dropout) is
    changed once: the second computation starts from the values of the first and so gives the same result.
    Keras's `remat` repeats such changes, and draws other dropout masks.

    Args:
        part: A built functional `keras.Model`.
        **options: Of `keras.layers.Layer`.
    """

    def __init__(self, part: keras.Model, **options: Any):
        super().__init__(**options)
        self.part = part
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The part's output; without a gradient to compute, at no further cost."""
        if not training:
            return self.part(inputs, training=False)
        weights, state = self.part.trainable_variables, self.part.non_trainable_variables

        @tf.recompute_grad
        def compute(x: tf.Tensor, weight_values: Any, state_values: Any) -> Any:
            return self.part.stateless_call(list(weight_values), list(state_values), x, training=True)

        values = [[tf.convert_to_tensor(each) for each in group] for group in (weights, state)]
        outputs, new_state = compute(inputs, *values)
        for variable, value in zip(state, new_state):
            variable.assign(value)
        return outputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the part."""
        return self.part.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The part as Keras stores models."""
        return super().get_config() | {"part": keras.saving.serialize_keras_object(self.part)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Rematerialized":
        """The reverse of `get_config`."""
        return cls(**{**config, "part": keras.saving.deserialize_keras_object(config["part"])})


def rematerialize(model: keras.Model, parts: int | Sequence[str] | None = None) -> keras.Model:
    """A model with the same weights whose training keeps few activations, and computes the others again.

    For models or batches that do not fit into the memory: of n layers about sqrt(n) activations are kept. One
    step takes about a third longer. Losses, gradients and weights are those of the model itself. Train the
    returned model, and then use or save the given one, whose weights are the same objects.

    The model is cut where a single tensor passes: between the blocks of a residual network or transformer.
    What lies before the first cut of a model with several inputs, and behind the last one of a model with
    several outputs, is kept as it is.

    Args:
        model: A functional or sequential model.
        parts: Into how many parts of about equal memory to cut; or the names of the layers after which to
            cut; or None for the square root of the number of places to cut.

    Raises:
        TypeError: If the model is no functional or sequential one.
        ValueError: If it is not built, cannot be cut, or not after one of the given layers.

    Example:
        >>> inputs = keras.Input((8,))
        >>> x = inputs
        >>> for _ in range(9):
        ...     x = keras.layers.Dense(8, "relu")(x)
        >>> model = keras.Model(inputs, x)
        >>> saving = tfopt.models.rematerialize(model)
        >>> saving.compile("sgd", "mse")
        >>> [len(layer.part.layers) - 1 for layer in saving.layers[1:]]
        [2, 3, 4]

    References:
        Chen, Xu, Zhang, Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016. arXiv:1604.06174.
    """
    _checks.check_instance("model", model, keras.Model)
    graph = functional(model)
    if not nodes(model):
        raise TypeError(
            "`model` must be a built functional or sequential model. "
            f"Received: model={model.name!r} ({type(model).__name__}). In a subclassed model put "
            "`tfopt.models.Rematerialized(part)` around its functional parts."
        )
    places = _places(model, graph)
    cuts = [tensor for tensor, _, _ in _chosen(places, parts, model.name)]
    starts = list(graph.inputs) if len(graph.inputs) > 1 else graph.inputs[0]
    inputs = [keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name) for x in graph.inputs]
    outer: Any = inputs if len(inputs) > 1 else inputs[0]
    tensor = outer
    ends: list[Any] = [*cuts, graph.outputs if len(graph.outputs) > 1 else graph.outputs[0]]
    for index, end in enumerate(ends):
        if end is starts:
            continue
        part = keras.Model(starts, end, name=f"part_{index}")
        single = not isinstance(starts, list) and not isinstance(end, list)
        tensor = Rematerialized(part, name=f"rematerialized_{index}")(tensor) if single else part(tensor)
        starts = end
    return keras.Model(outer, tensor, name=f"{model.name}_rematerialized")


def _places(model: keras.Model, graph: keras.Model) -> list[tuple[Any, str, int]]:
    """Where a single tensor passes: the tensor, the layer that made it, the elements of all before it."""
    calls = nodes(model)
    uses = [id(x) for node in calls for x in node.input_tensors] + [id(x) for x in graph.outputs]
    left = {key: uses.count(key) for key in set(uses)}
    open_tensors: set[int] = set()
    places, size = [], 0
    for node in calls:
        for x in node.input_tensors:
            left[id(x)] -= 1
            if not left[id(x)]:
                open_tensors.discard(id(x))
        for x in node.outputs:
            size += math.prod(each or 1 for each in x.shape)
            if left.get(id(x)):
                open_tensors.add(id(x))
        last = node.outputs[-1]
        is_input = isinstance(node.operation, keras.layers.InputLayer)
        is_end = any(last is x for x in graph.outputs)
        if open_tensors == {id(last)} and "float" in last.dtype and not (is_input or is_end):
            places.append((last, node.operation.name, size))
    return places


def _chosen(places: list[tuple[Any, str, int]], parts: Any, name: str) -> list[tuple[Any, str, int]]:
    if not places:
        raise ValueError(f"`model` has no place where a single tensor passes. Received: model={name!r}.")
    if isinstance(parts, list | tuple):
        found = {place[1] for place in places}
        missing = [layer for layer in parts if layer not in found]
        if missing:
            some = ", ".join(place[1] for place in places[:8])
            raise ValueError(
                f"`parts` must name layers after which a single tensor passes. Received: {missing[0]!r}. "
                f"Possible are: {some}."
            )
        return [place for place in places if place[1] in parts]
    count = round(math.sqrt(len(places) + 1)) if parts is None else parts
    _checks.check_integer("parts", count, minimum=1, maximum=len(places) + 1)
    total = places[-1][2]
    goals = [total * index / count for index in range(1, count)]
    nearest = [min(range(len(places)), key=lambda i: abs(places[i][2] - goal)) for goal in goals]
    return [places[index] for index in sorted(set(nearest))]
