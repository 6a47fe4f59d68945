"""Labels of every kind as distributions over exclusive classes, checked as Keras checks them."""

from typing import Any

import tensorflow as tf

from tfopt._checks import message
from tfopt._keras_internals import inside_xla

_TOLERANCE = 1e-3  # of the sum of a soft label, which may come from half precision


def distribution(
    y_true: Any, shape: tf.TensorShape, multi_label: bool, ignore_class: int | None
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """float32 labels in the shape of the log-probabilities, and where they count (None is everywhere).

    Args:
        y_true: Labels.
        shape: Of the predictions.
        multi_label: Whether each output is a label of its own.
        ignore_class: The integer label that does not count.

    Raises:
        ValueError: If the shapes do not fit.
        tf.errors.InvalidArgumentError: For labels out of range; compiled by XLA, which cannot raise, the loss
            becomes NaN.
    """
    y = tf.convert_to_tensor(y_true)
    classes = shape[-1]
    if multi_label:
        _check_shape(y, shape, "a number for each label [..., labels]")
        return _pairs(y), None
    if classes == 1:
        y = y[..., None] if y.shape.rank == shape.rank - 1 else y
        _check_shape(y, shape, "0 or 1 for each example")
        y, valid = _without_ignored(y[..., 0], ignore_class)
        return _pairs(y), valid
    if y.shape.rank == shape.rank and y.shape[-1] == 1:
        y = y[..., 0]
    if y.shape.rank == shape.rank - 1:
        y, valid = _without_ignored(y, ignore_class)
        return _one_hot(y, classes), valid
    _check_shape(y, shape, f"class numbers [...], or {classes} shares [..., classes]")
    return _soft(y), None


def check_probabilities(p: tf.Tensor) -> tf.Tensor:
    """Refuses logits that are taken for probabilities."""
    good = (p >= -_TOLERANCE) & (p <= 1 + _TOLERANCE)
    text = "`y_pred` must be probabilities in [0, 1]. If the model ends without softmax or sigmoid, give "
    return _checked(p, good, text + "`from_logits=True`.", p)


def _check_shape(y: tf.Tensor, shape: tf.TensorShape, expected: str) -> None:
    if y.shape.rank != shape.rank or not y.shape.is_compatible_with(shape):
        fix = f"The predictions have the shape {tuple(shape)}."
        raise ValueError(message("y_true", expected, tuple(y.shape), fix))


def _without_ignored(y: tf.Tensor, ignore_class: int | None) -> tuple[tf.Tensor, tf.Tensor | None]:
    if ignore_class is None:
        return y, None
    valid = tf.not_equal(y, tf.cast(ignore_class, y.dtype))
    return tf.where(valid, y, tf.zeros_like(y)), valid


def _one_hot(y: tf.Tensor, classes: int) -> tf.Tensor:
    numbers = tf.cast(y, tf.int32)
    good = (numbers >= 0) & (numbers < classes) & (tf.cast(numbers, y.dtype) == y)
    text = f"Labels must be whole numbers from 0 to {classes - 1}, as the model predicts {classes} classes. "
    text += "`ignore_class` leaves out places with one other label."
    return _checked(tf.one_hot(numbers, classes), good[..., None], text, y)


def _soft(y: tf.Tensor) -> tf.Tensor:
    y = tf.cast(y, tf.float32)
    good = tf.abs(tf.reduce_sum(y, -1, keepdims=True) - 1) < _TOLERANCE
    good &= tf.reduce_min(y, -1, keepdims=True) >= -_TOLERANCE
    text = (
        "Labels with a number for each class must be shares that sum to 1. If several classes may be true, "
    )
    return _checked(y, good, text + "give `multi_label=True`.", y)


def _pairs(y: tf.Tensor) -> tf.Tensor:
    y = tf.cast(y, tf.float32)
    y = _checked(y, (y >= 0) & (y <= 1), "Labels of a sigmoid must lie in [0, 1].", y)
    return tf.stack([1 - y, y], -1)


def _checked(value: tf.Tensor, good: tf.Tensor, text: str, shown: tf.Tensor) -> tf.Tensor:
    """The value if all is good; else an error, or NaN where XLA compiles."""
    if inside_xla():
        return tf.where(good, value, tf.fill(tf.shape(value), float("nan")))
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(good), [text, "Received:", shown])]):
        return tf.identity(value)
