"""Opens layers that have no rule, so that the rules see the layers and operations inside them.

Some layers are known (`pieces`). Of any other, such as a user's own layer or attention, the `call` is traced
symbolically: where it consists of Keras layers and operations, these are its inside. Where it does not,
because it
calls TensorFlow directly or reads values, the layer stays whole.
"""

import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, final

import keras

from tfopt._keras_internals import nodes
from tfopt.compress._graph import Call, Ref
from tfopt.compress.quantization import pieces, rules
from tfopt.compress.quantization.operations import WithWeights
from tfopt.compress.quantization.tracing import masked_like, sized, with_masks

L = keras.layers
_logger = logging.getLogger(__name__)
_UNKNOWN = (
    "`model` must be a Functional or a built Sequential model, or a subclassed one, called on one array "
    "before, "
    "whose `call` consists of Keras layers and `keras.ops`. Received: {!r} of type {}. {} Write it as "
    "`inputs = keras.Input(shape); keras.Model(inputs, model(inputs))`, with a `get_config`: what cannot "
    "be opened "
    "then stays in float."
)
_WHOLE = (L.RNN, L.Bidirectional, L.Lambda, L.InputLayer)  # loops, and code that need not be Keras's


@final
class Opener:
    """Gives `Graph` the inside of the layers that have no rule.

    Args:
        skip: Patterns of names; what fits stays whole.
        scheme: Classes of layers that the user replaces: they stay whole too.
    """

    def __init__(self, skip: Sequence[str], scheme: Sequence[type]) -> None:
        self.skip, self.scheme = skip, scheme
        self._pieces: dict[
            int, pieces.Piece | None
        ] = {}  # a layer that is called twice keeps one set of weights
        self._alive: list[Any] = []

    def __call__(self, call: Call, tensors: list[keras.KerasTensor], masks: list[Any]) -> keras.Model | None:
        """A model of the inside of a call, or None."""
        operation = call.operation
        if any(fnmatchcase(call.name, pattern) for pattern in self.skip) or type(operation) in self.scheme:
            return None
        if id(operation) not in self._pieces:
            self._alive.append(operation)  # an id is unique only while its operation lives
            self._pieces[id(operation)] = _piece(call)
        piece = self._pieces[id(operation)]
        inside = None if piece is None else _model(piece, call, tensors, masks)
        traced = piece is not None and _is_traced(piece, call)
        return None if inside is None or (traced and not _worthwhile(inside, operation)) else inside


def _is_traced(piece: pieces.Piece, call: Call) -> bool:
    return piece.call == getattr(call.operation, "call", None)


def _piece(call: Call) -> pieces.Piece | None:
    operation = call.operation
    if type(operation) in pieces.LAYERS:
        return pieces.LAYERS[type(operation)](operation)
    if not isinstance(operation, L.Layer):
        write = pieces.OPERATIONS.get(type(operation).__name__)
        if write is None:
            return _with_weights(call)
        return pieces.Piece(lambda *args, **kwargs: write(operation, *args, **kwargs))
    if rules.computes_in_float(call) is None or isinstance(operation, _WHOLE):
        return None
    return pieces.Piece(operation.call)  # the layers inside are only read: their copies are made later


def _model(
    piece: pieces.Piece, call: Call, tensors: list[keras.KerasTensor], outer: list[Any]
) -> keras.Model | None:
    """The piece on new inputs, or None if it cannot be traced."""
    inputs = [keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype) for tensor in tensors]
    masks = masked_like(inputs, outer) if _is_traced(piece, call) else []
    following = iter(inputs)
    args, kwargs = keras.tree.map_structure(
        lambda leaf: next(following) if isinstance(leaf, Ref) else leaf, (call.args, call.kwargs)
    )
    kwargs = with_masks(piece.call, args, kwargs) if masks else kwargs
    try:
        with sized(call.operation):
            outputs = piece.call(*args, **kwargs)
        for layer, values in piece.weights.items():
            layer.set_weights(values)
        return None if outputs is None else keras.Model([*inputs, *masks], keras.tree.flatten(outputs))
    except Exception as error:  # a user's code may do whatever it likes with what is no array
        _logger.debug("%s is not opened: %s", call.name, error)
        return None


def _worthwhile(inside: keras.Model, layer: keras.Layer) -> bool:
    """Whether a traced inside has all weights of the layer, and kernels that gain from being integers."""
    calls = [
        Call(node.operation, node.operation.name, node.arguments.args, node.arguments.kwargs, ())
        for node in nodes(inside)
        if not node.is_input and any("float" in tensor.dtype for tensor in node.outputs)
    ]
    held = [leaf for call in calls for leaf in _variables(call)]
    reached = {id(weight) for weight in [*inside.weights, *held]}
    known = all(rules.computes_in_float(call) is None for call in calls if _variables(call))
    if not known or not calls or not {id(weight) for weight in layer.trainable_weights} <= reached:
        return False
    layers = any(isinstance(call.operation, L.Layer) and call.operation.weights for call in calls)
    return layers or all(
        rules.computes_in_float(call) is None for call in calls if type(call.operation).__name__ != "Cast"
    )


def _with_weights(call: Call) -> pieces.Piece | None:
    """An operation on weights of a layer that was opened, as a layer that holds these weights."""
    variables = _variables(call)
    if not variables:
        return None
    found: list[Any] = []
    tensors: list[Any] = []

    def place(leaf: Any) -> Any:
        kind, where = ("weight", found) if isinstance(leaf, keras.Variable) else ("tensor", tensors)
        if not isinstance(leaf, keras.Variable | keras.KerasTensor | Ref):
            return leaf
        where.append(leaf)
        return {kind: len(where) - 1}

    template = keras.tree.map_structure(place, [list(call.args), dict(call.kwargs)])
    shapes = [list(variable.shape) for variable in variables]
    layer = WithWeights(call.operation, template, shapes, [v.trainable for v in variables], name="main")

    def run(*args: Any, **kwargs: Any) -> Any:
        leaves = keras.tree.flatten((args, kwargs))
        return layer(*(leaf for leaf in leaves if isinstance(leaf, keras.KerasTensor)))

    return pieces.Piece(run, {layer: [variable.numpy() for variable in variables]})


def _variables(call: Call) -> list[keras.Variable]:
    leaves = keras.tree.flatten((call.args, call.kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, keras.Variable)]


def as_functional(model: keras.Model) -> keras.Model:
    """A Functional model that computes what a built subclassed model does, made of the layers of that.

    Raises:
        ValueError: If the model is not built, or its `call` does not consist of Keras layers and operations.
    """
    if nodes(model):
        return model
    shape = model.get_build_config() and model.get_build_config().get("input_shape")
    if not model.built or not shape or not all(isinstance(size, int | None) for size in shape):
        raise ValueError(_UNKNOWN.format(model.name, type(model).__name__, "It is not built on one array."))
    reason = ""
    for dtype in ("float32", "int32"):
        inputs = keras.Input(tuple(shape)[1:], dtype=dtype)
        try:
            return keras.Model(inputs, model.call(inputs), name=model.name)
        except Exception as error:  # a user's code may do whatever it likes with what is no array
            reason = reason or str(error).strip().splitlines()[0]
    raise ValueError(_UNKNOWN.format(model.name, type(model).__name__, reason))
