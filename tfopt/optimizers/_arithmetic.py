"""The formulas that many rules share: moving average, bias correction, L2 norm, decay, trust ratio."""

import math

import tensorflow as tf


def mix(old: tf.Tensor, new: tf.Tensor, beta: float) -> tf.Tensor:
    """Exponential moving average: beta * old + (1 - beta) * new."""
    return old + (1.0 - beta) * (new - old)


def bias_correction(beta: float, step: tf.Tensor) -> tf.Tensor:
    """1 - beta**step. By expm1, because 1 - 0.999**1 in float32 is wrong in the fifth digit."""
    if beta == 0.0:
        return tf.ones_like(step)
    return -tf.math.expm1(step * math.log(beta))


def norm(x: tf.Tensor) -> tf.Tensor:
    """L2 norm of all elements."""
    return tf.sqrt(2 * tf.nn.l2_loss(x))  # one pass over the data, where square and sum take two


def layer_norm(x: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    """L2 norm of each layer in a variable: over all axes but those along which separate kernels lie."""
    return norm(x) if len(axes) == x.shape.rank else tf.norm(x, axis=axes, keepdims=True)


def with_decay(update: tf.Tensor, param: tf.Tensor, weight_decay: float) -> tf.Tensor:
    """update + weight_decay * param, without the product where nothing decays."""
    return update + weight_decay * param if weight_decay else update


def ratio_or_one(numerator: tf.Tensor, denominator: tf.Tensor) -> tf.Tensor:
    """numerator / denominator, or 1 where either is 0: the trust ratio of LARS and LAMB."""
    usable = tf.logical_and(numerator > 0, denominator > 0)
    return tf.where(usable, numerator / tf.where(usable, denominator, 1.0), 1.0)
