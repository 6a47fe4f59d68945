"""Gradients of embeddings: every touched row once, with the sum of its duplicates, in static shapes."""

from typing import NamedTuple

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


def to_dense(rows: Rows, shape: tuple[int, ...]) -> tf.Tensor:
    """The gradient of the whole variable."""
    first = tf.reshape(rows.first, [-1] + [1] * (len(shape) - 1))
    once = tf.where(first, rows.values, tf.zeros_like(rows.values))
    return tf.math.unsorted_segment_sum(once, rows.indices, shape[0])
