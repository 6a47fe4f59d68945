"""What the axes of a kernel mean: which are its inputs, its outputs, and separate kernels in one variable."""

import math
from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Geometry:
    """The meaning of a variable's axes, as its layer has it.

    Attributes:
        shape: Of the variable.
        kind: "kernel" for what multiplies inputs; "table" for rows that are looked up or added, such as
            embeddings and class tokens; "vector" for biases and scales, also those with several axes.
        outputs: The axes of a kernel along which its outputs lie, in order. The others are inputs.
        stacked: The axes along which separate kernels lie, such as the experts of a mixture.
        blocks: Number of separate kernels side by side on the last axis of the outputs: gates of a
            recurrent layer, groups of a convolution.
    """

    shape: tuple[int, ...]
    kind: str
    outputs: tuple[int, ...] = ()
    stacked: tuple[int, ...] = ()
    blocks: int = 1

    @property
    def is_kernel(self) -> bool:
        """Whether the variable multiplies inputs."""
        return self.kind == "kernel"

    @property
    def is_vector(self) -> bool:
        """Whether it is a bias or a scale."""
        return self.kind == "vector"

    @property
    def inputs(self) -> tuple[int, ...]:
        """The axes of a kernel over which the weights of one output extend."""
        others = (*self.stacked, *self.outputs)
        return tuple(axis for axis in range(len(self.shape)) if axis not in others)

    @property
    def unit_axes(self) -> tuple[int, ...]:
        """The axes over which one unit extends: the inputs of an output, a row of a table, a whole vector."""
        if self.is_kernel:
            return self.inputs
        return tuple(range(len(self.shape)))[-1 if self.kind == "table" else 0 :]

    @property
    def layer_axes(self) -> tuple[int, ...]:
        """The axes of one kernel, without those along which separate kernels lie."""
        return tuple(axis for axis in range(len(self.shape)) if axis not in self.stacked)

    @property
    def count(self) -> int:
        """Number of separate kernels."""
        return math.prod(self.shape[axis] for axis in self.stacked) * self.blocks

    @property
    def rows(self) -> int:
        """Inputs of an output; of a table its rows."""
        return math.prod(self.shape) // (self.count * self.columns)

    @property
    def columns(self) -> int:
        """Outputs of one kernel."""
        return math.prod(self.shape[axis] for axis in self.outputs) // self.blocks

    def to_matrices(self, x: tf.Tensor) -> tf.Tensor:
        """A tensor of the variable's shape as (count, rows, columns)."""
        x = tf.transpose(x, self._order)
        x = tf.reshape(x, (self.count // self.blocks, self.rows, self.blocks, self.columns))
        return tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (self.count, self.rows, self.columns))

    def from_matrices(self, x: tf.Tensor) -> tf.Tensor:
        """The reverse of `to_matrices`."""
        x = tf.reshape(x, (self.count // self.blocks, self.blocks, self.rows, self.columns))
        x = tf.reshape(tf.transpose(x, (0, 2, 1, 3)), [self.shape[axis] for axis in self._order])
        return tf.transpose(x, [self._order.index(axis) for axis in range(len(self.shape))])

    @property
    def _order(self) -> tuple[int, ...]:
        # Blocks lie on the last axis, which so must be the last of the outputs: the outer part of it.
        return (*self.stacked, *self.inputs, *self.outputs)


def from_shape(shape: tuple[int, ...], name: str) -> Geometry:
    """The geometry of a variable that no layer is known of.

    The outputs are the last axis of a kernel, with two exceptions that the shape gives away. Depthwise
    kernels are (height, width, channels, 1), and each channel is its own output. Attention projects to
    (inputs, heads, units of a head), and back by (heads, units of a head, outputs).
    """
    rank = len(shape)
    if rank < 2 or name.split(":")[0].endswith("bias"):
        return Geometry(shape, "vector")
    if rank == 4 and shape[3] == 1 and shape[2] > 1:
        return Geometry(shape, "kernel", (2, 3))
    # The inputs of an attention are more than the units of a head. A convolution over one axis, which has its
    # outputs last, is narrower than it has outputs.
    if rank == 3 and shape[0] > shape[2]:
        return Geometry(shape, "kernel", (1, 2))
    return Geometry(shape, "kernel", (rank - 1,))
