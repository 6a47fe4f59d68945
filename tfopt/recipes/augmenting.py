"""`augment=` of the caller: Keras layers, or a function of a batch of images."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfopt._checks import message
from tfopt.data import Augment

_EXPECTED = (
    "a tfopt.data.Augment, Keras layers such as keras.layers.RandomFlip(), or a function from float32 images "
    "[batch, height, width, 3] in [0, 255] to changed ones of the same shape"
)
_FIX = "A function of NumPy arrays can be wrapped: lambda images: tf.numpy_function(f, [images], tf.float32)."


def is_of_the_caller(augment: Any) -> bool:
    """Whether an option `augment` is layers or a function, which `tfopt.data.pipeline` does not take."""
    return augment is not None and not isinstance(augment, str | Augment)


def changing(augment: Any, size: tuple[int, int]) -> Callable[[tf.Tensor], tf.Tensor]:
    """The function that changes a batch of images, tried on one.

    Args:
        augment: A Keras layer, several in their order, or a function.
        size: Height and width of the images.

    Raises:
        ValueError: If it fails, or gives something else than images of the same shape.
    """
    layers = list(augment) if isinstance(augment, Sequence) else [augment]
    if not all(callable(layer) and not isinstance(layer, type) for layer in layers):
        raise ValueError(message("augment", _EXPECTED, augment))

    def change(images: tf.Tensor) -> tf.Tensor:
        shape = images.shape
        images = tf.cast(images, tf.float32)
        for layer in layers:
            training = {"training": True} if isinstance(layer, keras.layers.Layer) else {}
            images = layer(images, **training)
        return tf.ensure_shape(tf.cast(images, tf.float32), shape)

    batches = tf.data.Dataset.from_tensors(tf.fill([2, *size, 3], 127.0))
    try:
        found = next(iter(batches.map(change))).numpy()
    except Exception as error:  # whatever the caller's code raises, in a page of TensorFlow's
        reason = next((line.strip() for line in str(error).splitlines()[::-1] if line.strip()), repr(error))
        raise ValueError(
            f"{message('augment', _EXPECTED, augment)} It fails: {reason[:300]} {_FIX}"
        ) from error
    if not tf.reduce_all(tf.math.is_finite(found)):
        raise ValueError(message("augment", f"{_EXPECTED}, all finite", augment))
    return change


def described(augment: Any) -> Any:
    """Plain values that tell layers or a function from others, for the identity of a run and its files."""
    if isinstance(augment, Sequence):
        return [described(layer) for layer in augment]
    if isinstance(augment, keras.layers.Layer):
        return f"{type(augment).__module__}.{type(augment).__name__} {augment.get_config()}"
    code = getattr(augment, "__code__", None)
    content = repr((code.co_code, [c for c in code.co_consts if not hasattr(c, "co_code")])) if code else ""
    name = f"{augment.__module__}.{getattr(augment, '__qualname__', type(augment).__qualname__)}"
    return f"{name} {hashlib.sha256(content.encode()).hexdigest()[:8]}"
