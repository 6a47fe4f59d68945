"""with_bounded_masks: attention whose hidden scores do not set the int8 scale of the others."""

import logging
from typing import Any

import keras

from tfopt._keras_internals import every_layer, nodes
from tfopt.compress._clone import cloned, new_layer
from tfopt.compress._graph import Call, Graph
from tfopt.compress.quantization.opening import Opener
from tfopt.compress.quantization.rules import operation_name

L = keras.layers
_ATTENTION = (L.MultiHeadAttention, L.GroupQueryAttention, L.Attention, L.AdditiveAttention)
_logger = logging.getLogger(__name__)
_OPERATIONS = ("DotProductAttention", "Subtract", "Where", "Softmax")


def with_bounded_masks(model: keras.Model) -> keras.Model:
    """A copy of a model in which masks leave the scores of attention their size; the model if it has none.

    For post-training quantization, which takes ranges as they come: Keras hides scores by -1e9 or -1e38.
    """
    attend = [layer for layer in every_layer(model) if isinstance(layer, _ATTENTION)]
    named = [type(node.operation).__name__ in _OPERATIONS for node in nodes(model)]
    if not attend and not any(named):
        return model
    opener = Opener((), ())

    def inside(call: Call, tensors: list, masks: list[Any]) -> keras.Model | None:
        operation = call.operation
        masked = operation_name(operation) in _OPERATIONS and not isinstance(operation, L.Activation)
        holds = isinstance(operation, keras.Layer) and any(
            isinstance(layer, _ATTENTION) for layer in every_layer(operation)
        )
        # An EinsumDense of attention does not say the sizes of its outputs: the dense layer in it does.
        opened = masked or holds or (attend and isinstance(operation, L.EinsumDense))
        return opener(call, tensors, masks) if opened else None

    try:
        graph = Graph(model, inside)
        chosen = any(operation_name(call.operation) == "Where" for call in graph.calls)
        return cloned(graph, new_layer) if chosen else model
    except ValueError as error:  # it cannot be looked into, or made again
        _logger.debug("Masks of %s are left as they are: %s", model.name, error)
        return model
