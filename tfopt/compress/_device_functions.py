"""Functions of numbers that TFLite has no operation for, written with those that it has, in float."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)  # Abramowitz and Stegun, 7.1.26


def device_function(operation: Any) -> Callable[[Any], Any] | None:
    """What takes the place of `call` of an operation such as `keras.ops.tan`; None if nothing has to."""
    return _FORMS.get(type(operation).__name__)  # operations have no public classes


def _float(inputs: Any) -> Any:
    return tf.convert_to_tensor(inputs) if inputs.dtype.is_floating else tf.cast(inputs, tf.float32)


def _tan(inputs: Any) -> Any:
    x = _float(inputs)
    return tf.sin(x) / tf.cos(x)


def _arctan(inputs: Any) -> Any:
    x = _float(inputs)
    return tf.atan2(x, tf.ones_like(x))


def _arcsin(inputs: Any) -> Any:
    x = _float(inputs)
    return tf.atan2(x, tf.sqrt((1.0 - x) * (1.0 + x)))


def _arccos(inputs: Any) -> Any:
    x = _float(inputs)
    return tf.atan2(tf.sqrt((1.0 - x) * (1.0 + x)), x)


def _sinh(inputs: Any) -> Any:
    x = _float(inputs)
    power = tf.exp(tf.abs(x))
    return tf.sign(x) * (power - 1.0 / power) / 2.0


def _cosh(inputs: Any) -> Any:
    power = tf.exp(tf.abs(_float(inputs)))
    return (power + 1.0 / power) / 2.0


def _arcsinh(inputs: Any) -> Any:
    x = _float(inputs)
    size = tf.abs(x)
    return tf.sign(x) * tf.math.log(size + tf.sqrt(size * size + 1.0))


def _arccosh(inputs: Any) -> Any:
    x = _float(inputs)
    return tf.math.log(x + tf.sqrt((x - 1.0) * (x + 1.0)))


def _arctanh(inputs: Any) -> Any:
    x = _float(inputs)
    return tf.math.log((1.0 + x) / (1.0 - x)) / 2.0


def _erf(inputs: Any) -> Any:
    """The error function, with an error of at most 1.5e-7."""
    x = _float(inputs)
    size = tf.abs(x)
    t = 1.0 / (1.0 + 0.3275911 * size)
    total = t * _ERF[-1]
    for factor in reversed(_ERF[:-1]):
        total = t * (factor + total)
    return tf.sign(x) * (1.0 - total * tf.exp(-size * size))


_FORMS = {
    "Tan": _tan,
    "Arctan": _arctan,
    "Arcsin": _arcsin,
    "Arccos": _arccos,
    "Sinh": _sinh,
    "Cosh": _cosh,
    "Arcsinh": _arcsinh,
    "Arccosh": _arccosh,
    "Arctanh": _arctanh,
    "Erf": _erf,
}
