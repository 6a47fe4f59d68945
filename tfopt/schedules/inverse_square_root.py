"""The inverse square root schedule of the Transformer."""

import keras
import tensorflow as tf

from tfopt._checks import check_integer, check_number
from tfopt.schedules._schedule import Schedule


@keras.saving.register_keras_serializable(package="tfopt")
class InverseSquareRoot(Schedule):
    """A linear rise, then a fall with the square root of the update number; it never reaches zero.

    Use it for runs of unknown length. For a known length a cosine or `WarmupStableDecay` ends lower.

        rate(t) = peak * min(n / warmup_steps, sqrt(warmup_steps / n)),  n = t + 1

    Args:
        peak: The highest rate, reached by update number `warmup_steps`, > 0.
        warmup_steps: Updates of the rise, >= 1.

    Example:
        >>> schedule = tfopt.schedules.InverseSquareRoot(1e-3, warmup_steps=4000)

    Differs from the paper: `peak` is given instead of the model's width (d^-0.5 * warmup_steps^-0.5).

    References:
        Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762.
    """

    def __init__(self, peak: float, warmup_steps: int) -> None:
        self.peak = check_number("peak", peak, minimum=0.0, open_minimum=True)
        self.warmup_steps = check_integer("warmup_steps", warmup_steps, minimum=1)

    def rate(self, step: tf.Tensor) -> tf.Tensor:
        """See the class."""
        number = step + 1.0
        return self.peak * tf.minimum(number / self.warmup_steps, tf.sqrt(self.warmup_steps / number))
