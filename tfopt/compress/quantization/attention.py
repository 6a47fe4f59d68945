"""Attention in operations that TFLite has integer kernels for, with masks that leave the scores their scale.

Keras adds -1e9 or -1e38 to scores that a mask hides. In int8 such a number sets the scale, and nothing
is left of the others. A number just below the smallest score of the row hides as well.
"""

from typing import Any

import keras
import numpy as np

from tfopt._keras_internals import consumers

L = keras.layers
ops = keras.ops
_BELOW = 10.0  # exp(-10) of the smallest score that counts: less than a step of the softmax
HUGE = 1e4  # a constant of this size in scores is a mask


def hidden(scores: Any, mask: Any) -> Any:
    """The scores where the mask is true, elsewhere a number below all scores of the row."""
    return ops.where(mask, scores, _below(scores))


def _below(scores: Any) -> Any:
    return ops.subtract(ops.min(scores, axis=-1, keepdims=True), _BELOW)


def dot_product(operation: Any, query: Any, key: Any, value: Any, *args: Any, **options: Any) -> Any:
    """Attention of heads, (batch, places, heads, width), as matrix products; None with a bias."""
    given = {**dict(zip(("bias", "mask", "scale"), args)), **options}
    if given.get("bias") is not None or operation.attn_logits_soft_cap is not None:
        return None
    scale, mask = given.get("scale"), given.get("mask")
    query = ops.multiply(query, query.shape[-1] ** -0.5 if scale is None else scale)
    query, key, value = (ops.transpose(x, (0, 2, 1, 3)) for x in (query, key, value))
    scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
    if operation.is_causal:
        if None in scores.shape[-2:]:
            return None
        causal = np.tril(np.ones(scores.shape[-2:], bool))[None, None]
        mask = causal if mask is None else ops.logical_and(mask, causal)
    scores = scores if mask is None else hidden(scores, mask)
    scores = L.Softmax(name="softmax")(scores)
    return ops.transpose(ops.matmul(scores, value), (0, 2, 1, 3))


def masked_softmax(layer: keras.layers.Softmax) -> Any:
    """The `call` of a Softmax over the last axis that is given a mask, or a list of one axis."""

    def call(scores: Any, mask: Any = None) -> Any:
        axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
        several = not isinstance(layer.axis, int) and len(layer.axis) > 1
        if several or axis not in (-1, len(scores.shape) - 1) or (mask is None and axis is layer.axis):
            return None
        softmax = L.Softmax(name="main")
        if mask is None:
            return softmax(scores)
        probabilities = softmax(hidden(scores, mask))
        constant = not isinstance(mask, keras.KerasTensor)
        if constant and np.asarray(mask).any(-1).all():
            return probabilities
        return ops.where(mask, probabilities, 0.0)  # of rows without any score that counts

    return call


def shifted(operation: Any, scores: Any, number: Any) -> Any:
    """`scores - 1e9`, which `Attention` puts where a mask hides; None for any other subtraction."""
    is_mask = isinstance(number, int | float) and number >= HUGE
    return _below(scores) if is_mask and _makes_scores(operation) else None


def replaced(operation: Any, mask: Any, scores: Any = None, number: Any = None) -> Any:
    """`where(mask, scores, -1e9)`; None for any other choice."""
    is_mask = isinstance(number, int | float) and number <= -HUGE and isinstance(scores, keras.KerasTensor)
    return hidden(scores, mask) if is_mask and _makes_scores(operation) else None


def _makes_scores(operation: Any) -> bool:
    """Whether nothing but a softmax over the last axis takes the result, perhaps behind a choice by a mask.

    Elsewhere a large number is a quantity: `pressure - 101325`.
    """
    following = consumers(operation)
    return bool(following) and all(
        is_softmax(each) or (type(each).__name__ == "Where" and _makes_scores(each)) for each in following
    )


def is_softmax(operation: Any) -> bool:
    """Whether it is a softmax over the last axis."""
    if isinstance(operation, L.Activation):
        return operation.activation is keras.activations.softmax
    return type(operation).__name__ == "Softmax" and operation.axis in (-1, [-1], (-1,))
