"""Resizing by methods that TFLite lacks, as two products with matrices."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

L = keras.layers
# Methods of which TFLite has no operation. Each works on one axis after the other, as a sum of places.
SMOOTH = ("bicubic", "lanczos3", "lanczos5", "area")


def smooth_resizing(operation: Any) -> Callable[..., Any] | None:
    """The `call` of a bicubic or similar resizing by matrices, which are known if the sizes are; else None.

    Takes Resizing, UpSampling2D and `keras.ops.image.resize`.
    """
    kinds = isinstance(operation, L.Resizing | L.UpSampling2D) or type(operation).__name__ == "Resize"
    if not kinds or operation.interpolation not in SMOOTH or operation.data_format == "channels_first":
        return None
    if any(getattr(operation, f"{change}_to_aspect_ratio", False) for change in ("crop", "pad")):
        return None

    def call(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if len(inputs.shape) != 4 or None in inputs.shape[1:]:
            return type(operation).call(operation, inputs, *args, **kwargs)
        values = keras.ops.cast(inputs, "float32")
        for size, target in zip(inputs.shape[1:3], _target(operation, inputs.shape)):
            # The first place is summed over and becomes the last but one, so two turns bring the axes back.
            turned = keras.ops.transpose(values, (0, 2, 3, 1))
            values = keras.ops.transpose(
                keras.ops.matmul(turned, _matrix(operation, size, target)), (0, 1, 3, 2)
            )
        return values

    return call


def _target(operation: Any, shape: Any) -> tuple[int, int]:
    if isinstance(operation, L.UpSampling2D):
        return shape[1] * operation.size[0], shape[2] * operation.size[1]
    if isinstance(operation, L.Resizing):
        return operation.height, operation.width
    return tuple(operation.size)


def _matrix(operation: Any, size: int, target: int) -> np.ndarray:
    """(size, target): the share of each place in each new one, found by resizing an identity matrix."""
    options = {"interpolation": operation.interpolation, "antialias": getattr(operation, "antialias", False)}
    with tf.init_scope():  # numbers, not a part of the graph that is traced
        identity = tf.eye(size)[None, ..., None]
        resized = keras.ops.image.resize(identity, (target, size), data_format="channels_last", **options)
        found: np.ndarray = resized.numpy()[0, ..., 0].T
    return found
