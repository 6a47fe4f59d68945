"""The one-cycle policy."""

import keras
import tensorflow as tf

from tfopt._checks import check_choice, check_integer, check_number
from tfopt.schedules._schedule import Schedule, ease


@keras.saving.register_keras_serializable(package="tfopt")
class OneCycle(Schedule):
    """One rise to a high rate and one long fall far below the start, over the whole run.

    Use it to train from scratch in few epochs; the peak comes from `LearningRateFinder`. Not for runs
    of unknown length (`WarmupStableDecay`) or for fine-tuning at a low rate (`Warmup`).

        initial = peak / initial_divisor,  final = initial / final_divisor
        initial -> peak over warmup_fraction * total_steps updates, peak -> final over the rest

    Args:
        peak: The highest rate, > 0.
        total_steps: Number of updates of the run, >= 2.
        warmup_fraction: Share of the updates spent rising, in (0, 1).
        initial_divisor: `peak` over the first rate, >= 1.
        final_divisor: The first rate over the last one, >= 1.
        shape: "cosine" or "linear", of both phases.

    Example:
        >>> optimizer = keras.optimizers.SGD(tfopt.schedules.OneCycle(0.4, total_steps=1000), momentum=0.9)

    Differs from torch's `OneCycleLR`: the peak and the end come one update later (at
    `warmup_fraction * total_steps` and `total_steps`), and the momentum is not cycled.

    References:
        Smith and Topin, "Super-Convergence", 2017, arXiv:1708.07120.
    """

    def __init__(
        self,
        peak: float,
        total_steps: int,
        warmup_fraction: float = 0.3,
        initial_divisor: float = 25.0,
        final_divisor: float = 1e4,
        shape: str = "cosine",
    ) -> None:
        self.peak = check_number("peak", peak, minimum=0.0, open_minimum=True)
        self.total_steps = check_integer("total_steps", total_steps, minimum=2)
        self.warmup_fraction = check_number(
            "warmup_fraction", warmup_fraction, minimum=0.0, maximum=1.0, open_minimum=True, open_maximum=True
        )
        self.initial_divisor = check_number("initial_divisor", initial_divisor, minimum=1.0)
        self.final_divisor = check_number("final_divisor", final_divisor, minimum=1.0)
        self.shape = check_choice("shape", shape, ("cosine", "linear"))

    def rate(self, step: tf.Tensor) -> tf.Tensor:
        """See the class."""
        initial = self.peak / self.initial_divisor
        final = initial / self.final_divisor
        rise = self.warmup_fraction * self.total_steps
        rising = initial + (self.peak - initial) * ease(step / rise, self.shape)
        falling = self.peak + (final - self.peak) * ease(
            (step - rise) / (self.total_steps - rise), self.shape
        )
        return tf.where(step < rise, rising, falling)
