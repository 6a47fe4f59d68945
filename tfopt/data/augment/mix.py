"""MixUp and CutMix between neighbors: rows 0 and 1 of a batch are mixed, 2 and 3, and so on.

Both are one operation: every pixel is a weighted mean of the two images, and labels are weighted by the
mean weight. MixUp has one weight for all pixels; CutMix has 0 in a box and 1 elsewhere.

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
    for _ in range(60):  # bisection of the distribution function, to the last bit
        middle = (low + high) / 2
        with tf.init_scope():  # also while a graph is traced
            below = tf.math.betainc(np.float64(alpha), np.float64(alpha), middle).numpy() < probability
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return ((low + high) / 2).astype(np.float32)


def from_quantiles(quantiles: np.ndarray, u: tf.Tensor) -> tf.Tensor:
    """Draws from the distribution with these quantiles, from uniform draws `u` in [0, 1)."""
    place = u * (len(quantiles) - 1)
    step = tf.cast(place, tf.int32)
    low, high = tf.gather(quantiles, step), tf.gather(quantiles, step + 1)
    return low + (high - low) * (place - tf.cast(step, tf.float32))


def mix(
    images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, share: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mixes every image, and its label, with those of its neighbor.

    Args:
        images: float32 [batch, height, width, channels].
        labels: float32 [batch, classes].
        weights: Of the image's own pixels, float32 [batch, height or 1, width or 1, 1]; equal for neighbors.
        share: Mean of the weights, [batch].
    """
    other, share = neighbors(images), share[:, None]
    return other + (images - other) * weights, share * labels + (1 - share) * neighbors(labels)


def neighbors(values: tf.Tensor) -> tf.Tensor:
    """Swaps rows 0 and 1, 2 and 3, ...; the last row of an odd number stays."""
    count = tf.shape(values)[0]
    rows = tf.range(count)
    return tf.gather(values, tf.minimum(tf.bitwise.bitwise_xor(rows, 1), count - 1))


def mixup_weights(share: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Weights, and their mean: one number [batch] for all pixels."""
    return share[:, None, None, None], share


def cutmix_weights(
    share: tf.Tensor, x: tf.Tensor, y: tf.Tensor, height: int, width: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Weights, and their mean: 0 in a box that covers 1 - `share` of the image before the edges cut it off.

    Args:
        share: [batch].
        x: Middle of the box from left (0) to right (1), [batch].
        y: Middle of the box from top (0) to bottom (1), [batch].
        height: Of the images.
        width: Of the images.
    """
    side = tf.sqrt(1 - share)
    rows = tf.cast(_between(y, side, height), tf.float32)
    columns = tf.cast(_between(x, side, width), tf.float32)
    mean = 1 - tf.reduce_mean(rows, 1) * tf.reduce_mean(columns, 1)
    return 1 - (rows[:, :, None] * columns[:, None, :])[..., None], mean


def _between(middle: tf.Tensor, side: tf.Tensor, size: int) -> tf.Tensor:
    """bool [batch, size]: pixels less than half of `side` from `middle`, both relative to `size`."""
    places = (tf.range(size, dtype=tf.float32) + 0.5) / size
    return tf.abs(places[None, :] - middle[:, None]) < side[:, None] / 2
