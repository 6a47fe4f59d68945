"""MixUp and CutMix between neighbours: rows 0 and 1 of a batch are mixed, 2 and 3, and so on.

References:
    Zhang, Cisse, Dauphin, Lopez-Paz: mixup: Beyond Empirical Risk Minimization, arXiv:1710.09412.
    Yun, Han, Oh, Chun, Choe, Yoo: CutMix, arXiv:1905.04899.
"""

import numpy as np
import tensorflow as tf


def beta_quantiles(alpha: float, count: int = 4096) -> np.ndarray:
    """float32 [count + 1]: the quantiles of Beta(alpha, alpha) at equal steps of probability."""
    probability = np.linspace(0.0, 1.0, count + 1)
    low, high = np.zeros_like(probability), np.ones_like(probability)
    parameter = tf.constant(alpha, tf.float64)
    for _ in range(60):  # bisection of the distribution function, to the last bit
        middle = (low + high) / 2
        below = tf.math.betainc(parameter, parameter, tf.constant(middle)).numpy() < probability
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return ((low + high) / 2).astype(np.float32)


def from_quantiles(quantiles: np.ndarray, u: tf.Tensor) -> tf.Tensor:
    """Draws from the distribution with these quantiles, from uniform draws `u` in [0, 1)."""
    place = u * (len(quantiles) - 1)
    step = tf.cast(place, tf.int32)
    low, high = tf.gather(quantiles, step), tf.gather(quantiles, step + 1)
    return low + (high - low) * (place - tf.cast(step, tf.float32))


def neighbours(values: tf.Tensor) -> tf.Tensor:
    """Swaps rows 0 and 1, 2 and 3, ...; the last row of an odd number stays."""
    count = tf.shape(values)[0]
    rows = tf.range(count)
    return tf.gather(values, tf.minimum(tf.bitwise.bitwise_xor(rows, 1), count - 1))


def mixup(images: tf.Tensor, labels: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Averages neighbours: `share` [batch] of the row itself, the rest from its neighbour."""
    own = share[:, None, None, None]
    images = own * images + (1 - own) * neighbours(images)
    return images, share[:, None] * labels + (1 - share[:, None]) * neighbours(labels)


def cutmix(
    images: tf.Tensor, labels: tf.Tensor, share: tf.Tensor, x: tf.Tensor, y: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Replaces a box by the same box of the neighbour; labels are weighted by the true area.

    Args:
        images: float32 [batch, height, width, channels].
        labels: float32 [batch, classes].
        share: Wanted share of the row itself, [batch]; the box has the rest, before it is cut off at
            the edges.
        x: Middle of the box from left (0) to right (1), [batch]; equal for neighbours.
        y: Middle of the box from top (0) to bottom (1), [batch]; equal for neighbours.
    """
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    side = tf.sqrt(1 - share)
    rows = _between(y, side, height)
    columns = _between(x, side, width)
    box = rows[:, :, None] & columns[:, None, :]
    area = tf.reduce_mean(tf.cast(box, tf.float32), [1, 2])[:, None]
    images = tf.where(box[..., None], neighbours(images), images)
    return images, (1 - area) * labels + area * neighbours(labels)


def _between(middle: tf.Tensor, side: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """bool [batch, size]: pixels less than half of `side` from `middle`, both relative to `size`."""
    places = (tf.range(size, dtype=tf.float32) + 0.5) / tf.cast(size, tf.float32)
    return tf.abs(places[None, :] - middle[:, None]) < side[:, None] / 2
