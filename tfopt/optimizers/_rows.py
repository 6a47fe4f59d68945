"""Gradients of embeddings: every touched row once, with the sum of its duplicates, in static shapes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf


class Rows(NamedTuple):
    """Sorted row indices; for each the full sum of that row; whether it is the row's first mention.

    Duplicates stay, but all mentions of a row carry the same values, so that a scatter that writes
    them twice is right. Unlike `tf.unique`, this keeps shapes static and compiles under XLA.
    """

    indices: tf.Tensor
    values: tf.Tensor
    first: tf.Tensor


def from_slices(slices: tf.IndexedSlices) -> Rows:
    """Sums the duplicate rows of a sparse gradient."""
    order = tf.argsort(slices.indices)
    indices = tf.gather(slices.indices, order)
    values = tf.gather(slices.values, order)
    first = tf.concat([tf.ones_like(indices[:1], tf.bool), indices[1:] != indices[:-1]], axis=0)
    segments = tf.cumsum(tf.cast(first, tf.int32)) - 1
    sums = tf.math.unsorted_segment_sum(values, segments, tf.size(indices))
    return Rows(indices, tf.gather(sums, segments), first)


def square_sum(rows: Rows) -> tf.Tensor:
    """Sum of the squares of the dense gradient that the rows stand for."""
    per_row = tf.reduce_sum(tf.square(rows.values), axis=tuple(range(1, rows.values.shape.rank)))
    return tf.reduce_sum(tf.where(rows.first, per_row, tf.zeros_like(per_row)))


def gate(grads: Sequence[Any]) -> tf.Operation:
    """An operation that runs when all gradients are there: one edge for what must wait for them."""
    dense = [
        grad.values if isinstance(grad, tf.IndexedSlices) else grad for grad in grads if grad is not None
    ]
    with tf.control_dependencies(dense):
        return tf.no_op()


def once(rows: Rows) -> tf.Tensor:
    """The values with 0 in every repeated mention of a row."""
    first = tf.reshape(rows.first, [-1] + [1] * (rows.values.shape.rank - 1))
    return tf.where(first, rows.values, tf.zeros_like(rows.values))


def to_dense(rows: Rows, shape: tuple[int, ...]) -> tf.Tensor:
    """The gradient of the whole variable."""
    return tf.math.unsorted_segment_sum(once(rows), rows.indices, shape[0])


def merged(slices: tf.IndexedSlices) -> tf.IndexedSlices:
    """The same gradient with the sum of duplicates in one mention and 0 in the others."""
    rows = from_slices(slices)
    return tf.IndexedSlices(once(rows), rows.indices, slices.dense_shape)


def scaled(grad: tf.Tensor | tf.IndexedSlices, factor: float) -> tf.Tensor | tf.IndexedSlices:
    """A gradient times a number."""
    if isinstance(grad, tf.IndexedSlices):
        return tf.IndexedSlices(grad.values * factor, grad.indices, grad.dense_shape)
    return grad * factor
