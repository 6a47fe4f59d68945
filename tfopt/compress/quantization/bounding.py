"""with_bounded_masks: attention whose hidden scores do not set the int8 scale of the others."""

import logging
from typing import Any

import keras

from tfopt._keras_internals import every_layer, nodes
from tfopt.compress._clone import cloned, new_layer
from tfopt.compress._graph import Call, Graph
from tfopt.compress.quantization.attention import is_softmax
from tfopt.compress.quantization.hiding import with_chosen_scores
from tfopt.compress.quantization.opening import Opener
from tfopt.compress.quantization.rules import operation_name

L = keras.layers
_ATTENTION = (L.MultiHeadAttention, L.GroupQueryAttention, L.Attention, L.AdditiveAttention)
_logger = logging.getLogger(__name__)
_OPERATIONS = ("DotProductAttention", "Subtract", "Where", "Softmax")


def with_bounded_masks(model: keras.Model) -> keras.Model:
    """A copy of a model in which masks leave the scores of attention their size; the model if it has none.

    For post-training quantization, which takes ranges as they come: Keras and attention of the user's own
    hide scores by -1e9 or -1e38.
    """
    layers = every_layer(model)
    attend = any(isinstance(layer, _ATTENTION) for layer in layers)
    if not attend and not any(_is_own(layer) for layer in layers) and not _has_softmax(layers):
        return model
    opener = Opener((), ())

    def inside(call: Call, tensors: list, masks: list[Any]) -> keras.Model | None:
        operation = call.operation
        masked = operation_name(operation) in _OPERATIONS and not isinstance(operation, L.Activation)
        holds = isinstance(operation, keras.Layer) and any(
            _is_own(layer) or isinstance(layer, _ATTENTION) for layer in every_layer(operation)
        )
        # An EinsumDense of attention does not say the sizes of its outputs: the dense layer in it does.
        opened = masked or holds or (attend and isinstance(operation, L.EinsumDense))
        return opener(call, tensors, masks) if opened else None

    try:
        graph = Graph(model, inside)
        bounded = with_chosen_scores(graph)
        if bounded is None and any(operation_name(call.operation) == "Where" for call in graph.calls):
            bounded = cloned(graph, new_layer)
        return bounded or model
    except ValueError as error:  # it cannot be looked into, or made again
        _logger.debug("Masks of %s are left as they are: %s", model.name, error)
        return model


def _is_own(layer: keras.Layer) -> bool:
    """Whether neither Keras nor this library wrote the layer; what it does inside is not known."""
    is_known = type(layer).__module__.startswith(("keras.", "tfopt."))
    return not is_known and not isinstance(layer, keras.Model)


def _has_softmax(layers: list[keras.Layer]) -> bool:
    """Whether there is a softmax that something follows, as in attention."""
    called = [node for layer in layers if isinstance(layer, keras.Model) for node in nodes(layer)]
    inner = {id(tensor) for node in called for tensor in node.input_tensors}
    return any(
        is_softmax(node.operation) and any(id(tensor) in inner for tensor in node.outputs) for node in called
    )
