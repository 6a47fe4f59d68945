"""Kernels as matrices: a column for each output, which is the last axis but for depthwise kernels."""

import math

import tensorflow as tf


def is_matrix(shape: tuple[int, ...]) -> bool:
    """Whether a variable is a kernel: two axes or more."""
    return len(shape) >= 2


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a kernel: inputs of an output, and outputs."""
    if is_depthwise(shape):
        shape = shape[:3]
    return math.prod(shape[:-1]), shape[-1]


def as_matrix(x: tf.Tensor) -> tf.Tensor:
    """A kernel as the matrix of `matrix_shape`."""
    return tf.reshape(x, matrix_shape(tuple(x.shape)))


def is_depthwise(shape: tuple[int, ...]) -> bool:
    """Whether this is a depthwise kernel (height, width, channels, 1): each channel is its own output."""
    return len(shape) == 4 and shape[3] == 1 and shape[2] > 1
