"""The moving average of the weights that Keras's `use_ema` asks for, in two passes over the data."""

from typing import Any

import tensorflow as tf

from tfopt.optimizers._slots import slot_dtype
from tfopt.optimizers._update import assign, handle, read


def update(pairs: list[Any], iterations: Any, momentum: float, overwrite_frequency: int | None) -> None:
    """average = momentum * average + (1 - momentum) * weights; the first step copies, as in Keras.

    Args:
        pairs: Variables and their averages.
        iterations: Steps before this one.
        momentum: Share of the old average that stays.
        overwrite_frequency: After so many steps the weights become the average; None is never.
    """
    share = tf.where(tf.equal(iterations, 0), 1.0, 1.0 - momentum)
    for variable, average in pairs:
        dtype = slot_dtype(average)
        distance = read(handle(average), dtype) - tf.cast(read(handle(variable), variable.dtype), dtype)
        # average -= share * distance, in one kernel
        tf.raw_ops.ResourceApplyGradientDescent(
            var=handle(average), alpha=tf.cast(share, dtype), delta=distance
        )
    if overwrite_frequency:
        due = tf.equal((iterations + 1) % overwrite_frequency, 0)
        tf.cond(due, lambda: _overwrite(pairs), lambda: tf.no_op())


def _overwrite(pairs: list[Any]) -> tf.Operation:
    for variable, average in pairs:
        value = read(handle(average), slot_dtype(average))
        assign(handle(variable), tf.cast(value, variable.dtype))
    return tf.no_op()
