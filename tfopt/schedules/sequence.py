"""Schedules one after the other."""

from collections.abc import Sequence as PySequence
from typing import Any

import keras
import tensorflow as tf

from tfopt._checks import check_integer, message
from tfopt.schedules._schedule import Schedule, check_rate, rate_at


@keras.saving.register_keras_serializable(package="tfopt")
class Sequence(Schedule):
    """Runs schedules one after the other; each sees updates counted from its own beginning.

    Use it to join what has no ready-made shape. For a warm-up use `Warmup`, which also meets the
    first rate of what follows.

    Args:
        parts: List of `(schedule, steps)`: a Keras schedule or a constant rate, and how many updates
            it lasts, >= 1. The last one goes on for ever; its `steps` may be None.

    Example:
        >>> decay = keras.optimizers.schedules.ExponentialDecay(1e-2, 100, 0.5)
        >>> schedule = tfopt.schedules.Sequence([(1e-2, 500), (decay, None)])
    """

    def __init__(self, parts: PySequence[Any]) -> None:
        if not isinstance(parts, (list, tuple)) or not parts:
            raise ValueError(message("parts", "a list of at least one (schedule, steps)", parts))
        self.parts = []
        for index, part in enumerate(parts):
            if not isinstance(part, (list, tuple)) or len(part) != 2:
                raise ValueError(message(f"parts[{index}]", "a pair (schedule, steps)", part))
            open_ended = index == len(parts) - 1 and part[1] is None
            steps = None if open_ended else check_integer(f"parts[{index}][1]", part[1], minimum=1)
            self.parts.append((check_rate(f"parts[{index}][0]", part[0]), steps))

    def rate(self, step: tf.Tensor) -> tf.Tensor:
        """See the class."""
        begin = 0
        result = rate_at(self.parts[0][0], step)
        for (_, steps), (schedule, _) in zip(self.parts, self.parts[1:]):
            begin += steps or 0
            result = tf.where(step < begin, result, rate_at(schedule, tf.maximum(step - begin, 0.0)))
        return result
