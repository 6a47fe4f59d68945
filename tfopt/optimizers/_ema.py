"""The moving average of the weights that Keras's `use_ema` asks for, in one kernel per variable."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _kernels
from tfopt.optimizers._kernels import assign, read
from tfopt.optimizers._slots import slot_dtype
from tfopt.optimizers._update import handle


def update(pairs: list[Any], iterations: Any, momentum: float, overwrite_frequency: int | None) -> None:
    """average = momentum * average + (1 - momentum) * weights; the first step copies, as in Keras.

    Args:
        pairs: Variables and their averages, None for a variable without one.
        iterations: Steps before this one.
        momentum: Share of the old average that stays.
        overwrite_frequency: After so many steps the weights become the average; None is never.
    """
    pairs = [pair for pair in pairs if pair[1] is not None]
    if momentum:
        tf.cond(tf.equal(iterations, 0), lambda: _copy(pairs), lambda: _follow(pairs, momentum))
    else:  # the kernel divides by the momentum
        _copy(pairs)
    if overwrite_frequency:
        due = tf.equal((iterations + 1) % overwrite_frequency, 0)
        tf.cond(due, lambda: _overwrite(pairs), tf.no_op)


def _copy(pairs: list[Any]) -> tf.Operation:
    for variable, average in pairs:
        assign(handle(average), _weights(variable, average))
    return tf.no_op()


def _follow(pairs: list[Any], momentum: float) -> tf.Operation:
    for variable, average in pairs:
        _kernels.follow(handle(average), _weights(variable, average), momentum)
    return tf.no_op()


def _weights(variable: Any, average: keras.Variable) -> tf.Tensor:
    return tf.cast(read(handle(variable), variable.dtype), slot_dtype(average))


def _overwrite(pairs: list[Any]) -> tf.Operation:
    for variable, average in pairs:
        value = read(handle(average), slot_dtype(average))
        assign(handle(variable), tf.cast(value, variable.dtype))
    return tf.no_op()
