"""Gradient clipping as Keras defines it, on gradients that are already summed over the replicas."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _rows


def clipped(optimizer: keras.optimizers.Optimizer, grads: list[Any]) -> list[Any]:
    """The gradients after the one clipping option of the optimizer that is set."""
    if not (optimizer.clipvalue or optimizer.clipnorm or optimizer.global_clipnorm):
        return grads
    grads = [_rows.from_slices(g) if isinstance(g, tf.IndexedSlices) else g for g in grads]
    if optimizer.clipvalue:
        bound = optimizer.clipvalue
        return [_with_values(g, tf.clip_by_value(_values(g), -bound, bound)) for g in grads]
    if optimizer.clipnorm:
        return [_scaled(g, _shrink(square_sum(g), optimizer.clipnorm)) for g in grads]
    total = 2.0 * tf.add_n([tf.cast(_half_square_sum(g), tf.float32) for g in grads])
    factor = _shrink(total, optimizer.global_clipnorm)
    return [_scaled(g, factor) for g in grads]


def square_sum(grad: Any) -> tf.Tensor:
    """Sum of squares of a dense gradient or of rows, in at least float32."""
    return 2.0 * _half_square_sum(grad)


def _half_square_sum(grad: Any) -> tf.Tensor:
    if isinstance(grad, _rows.Rows):
        return 0.5 * _rows.square_sum(grad._replace(values=_widened(grad.values)))
    return tf.nn.l2_loss(_widened(grad))  # one pass over the data, where square and sum take two


def _shrink(square_norm: tf.Tensor, limit: float) -> tf.Tensor:
    return limit / tf.maximum(tf.sqrt(square_norm), limit)


def _values(grad: Any) -> tf.Tensor:
    return grad.values if isinstance(grad, _rows.Rows) else grad


def _with_values(grad: Any, values: tf.Tensor) -> Any:
    return grad._replace(values=values) if isinstance(grad, _rows.Rows) else values


def _scaled(grad: Any, factor: tf.Tensor) -> Any:
    values = _values(grad)
    return _with_values(grad, values * tf.cast(factor, values.dtype))


def _widened(x: Any) -> tf.Tensor:
    return tf.cast(x, tf.float32) if x.dtype.size < 4 else x
