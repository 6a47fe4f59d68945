"""The table of layers that store numbers: their kernels, which axes are channels, and what is compressed.

Pruning, clustering, sparse training, binarization, slimming and sensitivity all read it. To add a layer, add
its row to `LAYOUTS` and a case to `tests/test_compress_kernels.py`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import keras

from tfopt._keras_internals import own_trainable

L = keras.layers

SMALL = "depthwise kernels hold few weights and lose the most"
LORA = "LoRA adds to it: load the file of `save_weights`, which merges both, into the model without LoRA"


@final
@dataclass(frozen=True)
class Layout:
    """How one weight of a layer is laid out. Axes are counted from the end (-1 is the last).

    Attributes:
        weight: Name of the variable.
        inputs: Axes of the channels that the kernel reads; none for a depthwise kernel.
        outputs: Axes of the channels that it makes.
        dense: Why it stays as it is unless it is asked for, or None.
    """

    weight: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dense: str | None = None


_PLAIN = (Layout("kernel", (-2,), (-1,)),)
_TRANSPOSED = (Layout("kernel", (-1,), (-2,)),)
_DEPTHWISE = (Layout("kernel", (), (-2, -1), SMALL),)
_SEPARABLE = (
    Layout("depthwise_kernel", (), (-2, -1), SMALL),
    Layout("pointwise_kernel", (-2,), (-1,)),
)
_RECURRENT = (*_PLAIN, Layout("recurrent_kernel", (-2,), (-1,)))
_EMBEDDING = (Layout("embeddings", (-2,), (-1,)),)


def _einsum(layer: Any) -> tuple[Layout, ...]:
    """The axes of an `EinsumDense` kernel, read off its equation."""
    operands, result = layer.equation.replace(" ", "").split("->")
    source, kernel = operands.split(",")
    made = [letter in result and letter not in source for letter in kernel]
    axes = [index - len(kernel) for index in range(len(kernel))]
    outputs = tuple(axis for axis, new in zip(axes, made) if new)
    return (Layout("kernel", tuple(axis for axis in axes if axis not in outputs), outputs),)


# A subclass has the row of its base class. Layers without a row: see `layouts`.
LAYOUTS: dict[type, tuple[Layout, ...] | Callable[[Any], tuple[Layout, ...]]] = {
    L.Dense: _PLAIN,
    L.EinsumDense: _einsum,
    L.Conv1D: _PLAIN,
    L.Conv2D: _PLAIN,
    L.Conv3D: _PLAIN,
    L.Conv1DTranspose: _TRANSPOSED,
    L.Conv2DTranspose: _TRANSPOSED,
    L.Conv3DTranspose: _TRANSPOSED,
    L.DepthwiseConv1D: _DEPTHWISE,
    L.DepthwiseConv2D: _DEPTHWISE,
    L.SeparableConv1D: _SEPARABLE,
    L.SeparableConv2D: _SEPARABLE,
    L.LSTMCell: _RECURRENT,
    L.GRUCell: _RECURRENT,
    L.SimpleRNNCell: _RECURRENT,
    L.Embedding: _EMBEDDING,
    # Scales, shifts and slopes, of any rank: no kernels.
    L.BatchNormalization: (),
    L.GroupNormalization: (),
    L.LayerNormalization: (),
    L.RMSNormalization: (),
    L.PReLU: (),
}


def row(layer: keras.Layer) -> tuple[Layout, ...] | None:
    """The row of a layer's class or nearest base class, or None."""
    for kind in type(layer).__mro__:
        if kind in LAYOUTS:
            entry = LAYOUTS[kind]
            return entry(layer) if callable(entry) else entry
    return None


def layouts(layer: keras.Layer) -> list[tuple[Layout, keras.Variable]]:
    """The kernels that a layer itself holds (not those of layers inside it), with their variables.

    A weight of a layer without a row, or beside the row of its base class, is a kernel if it was made
    trainable and has at least two axes longer than 1. Its last two axes are taken for inputs and outputs.
    """
    known = row(layer)
    if known == ():
        return []
    named = {layout.weight: layout for layout in known or ()}
    found = []
    for variable in own_trainable(layer):
        layout = named.get(variable.name)
        if layout is None and _is_kernel(variable):
            layout = Layout(variable.name, (-2,), (-1,))
        if layout is not None:
            if getattr(layer, "lora_enabled", False):
                layout = Layout(layout.weight, layout.inputs, layout.outputs, LORA)
            found.append((layout, variable))
    return found


def _is_kernel(variable: keras.Variable) -> bool:
    return "bias" not in variable.name and sum(size > 1 for size in variable.shape) >= 2


def to_matrix(layout: Layout, value: Any, ops: Any = keras.ops) -> Any:
    """The kernel with its axes in the order (places..., inputs, outputs), one axis for all inputs or outputs.

    Args:
        layout: Of the kernel.
        value: The kernel.
        ops: Whose `transpose` and `reshape` to use: `keras.ops` or NumPy.
    """
    shape, order = value.shape, _order(layout, len(value.shape))
    places = [shape[axis] for axis in order[: -len(layout.inputs + layout.outputs)]]
    sizes = [math.prod(shape[axis] for axis in axes) for axes in (layout.inputs, layout.outputs)]
    return ops.reshape(ops.transpose(value, order), (*places, *sizes))


def from_matrix(layout: Layout, matrix: Any, shape: tuple[int, ...], ops: Any = keras.ops) -> Any:
    """The inverse of `to_matrix`, for a kernel of this shape."""
    order = _order(layout, len(shape))
    back = sorted(range(len(order)), key=order.__getitem__)
    return ops.transpose(ops.reshape(matrix, [shape[axis] for axis in order]), back)


def _order(layout: Layout, rank: int) -> list[int]:
    last = [axis + rank for axis in (*layout.inputs, *layout.outputs)]
    return [axis for axis in range(rank) if axis not in last] + last
