"""Pooling over three dimensions, which TFLite lacks, as two poolings over two."""

from collections.abc import Callable
from typing import Any

import keras

L = keras.layers


def flat_pooling(layer: keras.Layer) -> Callable[[Any], Any] | None:
    """The `call` of MaxPooling3D or AveragePooling3D by poolings that TFLite has; None for any other layer.

    The mean or the largest value of a box is that of its slices: what padding adds counts in neither, and
    the number of values is the same in all slices.
    """
    kinds = {L.MaxPooling3D: keras.ops.max_pool, L.AveragePooling3D: keras.ops.average_pool}
    pool = kinds.get(type(layer))
    if pool is None or layer.data_format != "channels_last":
        return None

    def call(inputs: Any) -> Any:
        if None in inputs.shape[1:]:
            return type(layer).call(layer, inputs)
        size, strides = layer.pool_size, layer.strides
        depth, height, width, channels = inputs.shape[1:]
        slices = keras.ops.reshape(inputs, (-1, height, width, channels))
        slices = pool(slices, size[1:], strides[1:], layer.padding, "channels_last")
        height, width = slices.shape[1:3]
        columns = keras.ops.reshape(slices, (-1, depth, height * width, channels))
        columns = pool(columns, (size[0], 1), (strides[0], 1), layer.padding, "channels_last")
        batch = -1 if inputs.shape[0] is None else inputs.shape[0]
        return keras.ops.reshape(columns, (batch, columns.shape[1], height, width, channels))

    return call
