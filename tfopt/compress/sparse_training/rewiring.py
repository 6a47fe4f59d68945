"""Which connections to drop and which to grow: pure functions of weights, gradients and masks."""

from typing import Any

import tensorflow as tf


def largest(scores: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    """A 0/1 mask, in the shape and dtype of the scores, of exactly `count` largest; of equals the first."""
    order = tf.argsort(tf.reshape(scores, [-1]), direction="DESCENDING", stable=True)
    chosen = tf.cast(tf.range(tf.size(scores)) < count, scores.dtype)
    return tf.reshape(tf.scatter_nd(order[:, None], chosen, [tf.size(scores)]), tf.shape(scores))


def rewired(mask: tf.Tensor, weights: tf.Tensor, growth: tf.Tensor, share: Any) -> tf.Tensor:
    """A mask of as many connections, the weakest of which have moved.

    Args:
        mask: 0/1 for each weight.
        weights: Current weights: the connections of smallest magnitude are dropped.
        growth: Scores >= 0: connections grow where they are largest, a dropped one again if its score is.
        share: Share of the connections to move, in [0, 1].
    """
    active = tf.reduce_sum(tf.cast(mask, tf.int32))
    moved = tf.cast(tf.round(tf.cast(active, tf.float32) * share), tf.int32)
    kept = largest(tf.where(mask > 0, tf.abs(weights), -1.0), active - moved)
    return kept + largest(tf.where(kept > 0, tf.cast(-1.0, growth.dtype), growth), moved)


def most_sensitive(weights: list, gradients: list, counts: list[int] | int) -> list[tf.Tensor]:
    """Masks of the weights whose removal would change the loss most, to first order: largest |g w|.

    Args:
        weights: Tensors at initialization.
        gradients: Their gradients on one batch.
        counts: Connections to keep of each tensor, or of all together.

    References:
        Lee, Ajanthan, Torr: SNIP. arXiv:1810.02340
    """
    scores = [tf.abs(weight * gradient) for weight, gradient in zip(weights, gradients)]
    if not isinstance(counts, int):
        return [largest(score, count) for score, count in zip(scores, counts)]
    together = largest(tf.concat([tf.reshape(score, [-1]) for score in scores], axis=0), counts)
    parts = tf.split(together, [tf.size(score) for score in scores])
    return [tf.reshape(part, score.shape) for part, score in zip(parts, scores)]
