"""Warm-up in front of any schedule."""

from typing import Any

import keras
import tensorflow as tf

from tfopt._checks import check_choice, check_integer, check_number
from tfopt.schedules._schedule import Schedule, check_rate, ease, rate_at


@keras.saving.register_keras_serializable(package="tfopt")
class Warmup(Schedule):
    """Rises to the first rate of another schedule, then follows that schedule from its beginning.

    Use it for large batches, high rates, adaptive optimizers and freshly added layers, whose first
    gradients are large and noisy. A model that is merely continued needs none.

        rate(t) = initial + (after(0) - initial) * shape(t / warmup_steps)    t < warmup_steps
        rate(t) = after(t - warmup_steps)                                     otherwise

    Args:
        after: A Keras schedule, or a constant rate >= 0.
        warmup_steps: Number of updates of the rise, >= 1.
        initial: Rate of the first update, >= 0.
        shape: "linear" or "cosine" (half a period, flat at both ends).

    Example:
        >>> decay = keras.optimizers.schedules.CosineDecay(1e-3, decay_steps=900)
        >>> optimizer = keras.optimizers.Adam(tfopt.schedules.Warmup(decay, warmup_steps=100))

    Differs from Keras's `CosineDecay(warmup_target=)`: works in front of every schedule.

    References:
        Goyal et al., "Accurate, Large Minibatch SGD", 2017, arXiv:1706.02677.
    """

    def __init__(self, after: Any, warmup_steps: int, initial: float = 0.0, shape: str = "linear") -> None:
        self.after = check_rate("after", after)
        self.warmup_steps = check_integer("warmup_steps", warmup_steps, minimum=1)
        self.initial = check_number("initial", initial, minimum=0.0)
        self.shape = check_choice("shape", shape, ("linear", "cosine"))

    def rate(self, step: tf.Tensor) -> tf.Tensor:
        """See the class."""
        after = rate_at(self.after, tf.maximum(step - self.warmup_steps, 0.0))
        rising = self.initial + (after - self.initial) * ease(step / self.warmup_steps, self.shape)
        return tf.where(step < self.warmup_steps, rising, after)
