"""Which weights to keep: pure functions from a weight tensor to a 0/1 mask of the same shape and dtype.

Given the same weights they equal the masks of tensorflow-model-optimization (a test compares them).
"""

import tensorflow as tf


def kept(size: tf.Tensor | int, sparsity: tf.Tensor | float) -> tf.Tensor:
    """How many of `size` weights stay at this sparsity: at least one."""
    share = tf.cast(size, tf.float32) * (1.0 - tf.cast(sparsity, tf.float32))
    return tf.cast(tf.maximum(tf.round(share), 1.0), tf.int32)


def threshold(scores: tf.Tensor, sparsity: tf.Tensor | float) -> tf.Tensor:
    """The smallest score that stays: of equal scores at the threshold, all stay."""
    ordered = tf.sort(tf.reshape(scores, [-1]), direction="DESCENDING")
    return ordered[kept(tf.size(scores), sparsity) - 1]


def magnitude_mask(weights: tf.Tensor, sparsity: tf.Tensor | float) -> tf.Tensor:
    """Keeps the weights of largest magnitude (Han et al., 2015; Zhu and Gupta, 2017)."""
    return keep_above(weights, threshold(tf.abs(weights), sparsity))


def keep_above(weights: tf.Tensor, limit: tf.Tensor | float) -> tf.Tensor:
    """Keeps the weights whose magnitude reaches a limit."""
    return tf.cast(tf.abs(weights) >= limit, weights.dtype)


def two_of_four_mask(weights: tf.Tensor) -> tf.Tensor:
    """Keeps the two largest of every four neighbors along the input channels.

    TFLite stores Conv2D kernels as (out, height, width, in) and Dense kernels as (out, in), so four
    neighbors in the file are four input channels: axis -2 of a Keras kernel. The last group may be shorter.
    """
    channels = weights.shape[-2]
    last = tf.linalg.matrix_transpose(tf.abs(weights))
    padded = tf.pad(last, [[0, 0]] * (len(last.shape) - 1) + [[0, -channels % 4]])
    groups = tf.reshape(padded, [-1, 4])
    _, largest = tf.math.top_k(groups, k=2)
    mask = tf.reduce_sum(tf.one_hot(largest, 4, dtype=weights.dtype), axis=1)
    return tf.linalg.matrix_transpose(tf.reshape(mask, tf.shape(padded))[..., :channels])


def block_mask(weights: tf.Tensor, sparsity: tf.Tensor | float, block: tuple[int, int]) -> tf.Tensor:
    """Keeps or removes whole blocks of (inputs, outputs), by their mean magnitude.

    A convolution kernel is read as the matrix (height * width * in, out). Border blocks may be smaller.
    """
    rows, columns = tf.reduce_prod(weights.shape[:-1]), weights.shape[-1]
    matrix = tf.reshape(tf.abs(weights), [1, rows, columns, 1])
    means = tf.nn.avg_pool2d(matrix, block, block, "SAME")[0, :, :, 0]
    mask = tf.cast(means >= threshold(means, sparsity), weights.dtype)
    whole = tf.repeat(tf.repeat(mask, block[0], axis=0), block[1], axis=1)
    return tf.reshape(whole[:rows, :columns], weights.shape)
