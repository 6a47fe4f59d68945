"""The moving average of the weights that Keras's `use_ema` asks for, in one kernel per variable."""

from typing import Any

import tensorflow as tf

from tfopt.optimizers import _kernels
from tfopt.optimizers._kernels import assign, read
from tfopt.optimizers._slots import slot_dtype
from tfopt.optimizers._update import handle

# The kernel divides by the share that stays; of this one nothing is left in any float type.
NOTHING = 1e-20


def update(pairs: list[Any], iterations: Any, momentum: float, overwrite_frequency: int | None) -> None:
    """average = momentum * average + (1 - momentum) * weights; the first step copies, as in Keras.

    Args:
        pairs: Variables and their averages.
        iterations: Steps before this one.
        momentum: Share of the old average that stays.
        overwrite_frequency: After so many steps the weights become the average; None is never.
    """
    first, later = tf.equal(iterations, 0), max(momentum, NOTHING)
    shares = {
        dtype: tf.where(first, tf.constant(NOTHING, dtype), tf.constant(later, dtype))
        for dtype in {slot_dtype(average) for _, average in pairs}
    }
    for variable, average in pairs:
        dtype = slot_dtype(average)
        weights = tf.cast(read(handle(variable), variable.dtype), dtype)
        _kernels.follow(handle(average), weights, shares[dtype])
    if overwrite_frequency:
        due = tf.equal((iterations + 1) % overwrite_frequency, 0)
        tf.cond(due, lambda: _overwrite(pairs), tf.no_op)


def _overwrite(pairs: list[Any]) -> tf.Operation:
    for variable, average in pairs:
        value = read(handle(average), slot_dtype(average))
        assign(handle(variable), tf.cast(value, variable.dtype))
    return tf.no_op()
