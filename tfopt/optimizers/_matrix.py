"""Kernels as matrices: a column for each output.

The outputs are the last axis of a kernel, with two exceptions that its shape gives away. Depthwise
kernels are (height, width, channels, 1) or (width, channels, 1), and each channel is its own output.
Attention projects to (inputs, heads, units of a head), and back by (heads, units of a head, outputs).
"""

import math
from typing import Any

import tensorflow as tf


def is_matrix(shape: tuple[int, ...]) -> bool:
    """Whether a variable is a kernel: two axes or more."""
    return len(shape) >= 2


def input_axes(shape: tuple[int, ...]) -> list[int]:
    """The axes of a kernel over which the weights of one output extend; always the first ones."""
    if len(shape) == 4 and shape[3] == 1 and shape[2] > 1:
        return [0, 1]
    # The inputs of an attention are more than the units of a head. A convolution over one axis, which
    # has its outputs last, is narrower than it has outputs.
    if len(shape) == 3 and shape[0] > shape[2]:
        return [0]
    return list(range(len(shape) - 1))


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a kernel: inputs of an output, and outputs."""
    count = len(input_axes(shape))
    return math.prod(shape[:count]), math.prod(shape[count:])


def as_matrix(x: tf.Tensor) -> tf.Tensor:
    """A kernel as the matrix of `matrix_shape`."""
    return tf.reshape(x, matrix_shape(tuple(x.shape)))


def is_vector(variable: Any) -> bool:
    """Whether a variable is a vector, or a bias by its name: those of GRU and attention have two axes."""
    return len(variable.shape) < 2 or variable.name.split(":")[0] == "bias"
