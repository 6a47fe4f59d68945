"""What a layer needs to be traced by its `call`: the masks of its inputs, and the sizes of what it makes.

`Layer.__call__` gives a layer the masks of its inputs as arguments, and some layers read them off the
tensors. A trace on new inputs has to do both, or padding takes part in attention.
"""

import contextlib
from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any

import keras

from tfopt._keras_internals import every_layer, mask_of, set_mask


def masked_like(inputs: list, outer: list) -> list:
    """New inputs that stand for masks (each that is not None), passed beside the inputs they belong to."""
    masks = []
    for entry, mask in zip(inputs, outer):
        if mask is not None:
            masks.append(keras.Input(batch_shape=mask.shape, dtype=mask.dtype))
            set_mask(entry, masks[-1])
    return masks


def with_masks(function: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """The named arguments of a layer's `call` and the masks that `Layer.__call__` would add to them."""
    parameters = signature(function).parameters
    given = {**dict(zip(parameters, args)), **kwargs}
    holders = {name: value for name, value in given.items() if _tensors(value)}
    added = {}
    for name, value in holders.items():
        wanted = "mask" if len(holders) == 1 else f"{name}_mask"
        masks = keras.tree.map_structure(mask_of, value)
        found = [mask for mask in keras.tree.flatten(masks) if mask is not None]
        if wanted in parameters and given.get(wanted) is None and found:
            added[wanted] = masks
    return {**kwargs, **added}


def _tensors(value: Any) -> list:
    return [leaf for leaf in keras.tree.flatten(value) if isinstance(leaf, keras.KerasTensor)]


@contextlib.contextmanager
def sized(layer: Any) -> Iterator[None]:
    """Dense layers with an einsum equation inside a layer know all sizes of their outputs, as masks need.

    Keras's own attention makes them with `output_shape=(None, ...)`, and their outputs have sizes of None.
    """
    found = every_layer(layer) if isinstance(layer, keras.Layer) else []
    dense = [each for each in found if type(each) is keras.layers.EinsumDense and "..." not in each.equation]
    for each in dense:
        object.__setattr__(each, "compute_output_shape", _shape_of(each))
    try:
        yield
    finally:
        for each in dense:
            object.__delattr__(each, "compute_output_shape")


def _shape_of(layer: keras.layers.EinsumDense) -> Callable[[Any], tuple]:
    left, kernel, output = layer.equation.replace("->", ",").split(",")

    def compute_output_shape(input_shape: Any) -> tuple:
        sizes = {**dict(zip(kernel, layer.kernel.shape)), **dict(zip(left, input_shape))}
        return tuple(sizes[axis] for axis in output)

    return compute_output_shape
