"""Warm-up, a long plateau, a short decay."""

import keras
import tensorflow as tf

from tfopt._checks import check_choice, check_integer, check_number
from tfopt.schedules._schedule import Schedule, ease


@keras.saving.register_keras_serializable(package="tfopt")
class WarmupStableDecay(Schedule):
    """Rises, stays, and falls only at the end: the trapezoid.

    Use it when the length of the run is open: train at the plateau as long as you like, and decay from
    any checkpoint. At a fixed length it matches a cosine, not more.

        0 -> peak over warmup_steps, peak for stable_steps, peak -> final over decay_steps, then final

    Args:
        peak: The rate of the plateau, > 0.
        warmup_steps: Updates of the linear rise, >= 0.
        stable_steps: Updates of the plateau, >= 0.
        decay_steps: Updates of the fall, >= 1; a tenth to a fifth of the run.
        final: The last rate, in [0, peak].
        shape: Of the fall: "linear", "cosine" or "sqrt" (1 - sqrt of the fraction).

    Example:
        >>> schedule = tfopt.schedules.WarmupStableDecay(1e-3, 100, 700, 200)

    References:
        Hu et al., "MiniCPM", 2024, arXiv:2404.06395; Hagele et al., "Scaling Laws and Compute-Optimal
        Training Beyond Fixed Training Durations" (the "sqrt" shape), 2024, arXiv:2405.18392.
    """

    def __init__(
        self,
        peak: float,
        warmup_steps: int,
        stable_steps: int,
        decay_steps: int,
        final: float = 0.0,
        shape: str = "linear",
    ) -> None:
        self.peak = check_number("peak", peak, minimum=0.0, open_minimum=True)
        self.warmup_steps = check_integer("warmup_steps", warmup_steps, minimum=0)
        self.stable_steps = check_integer("stable_steps", stable_steps, minimum=0)
        self.decay_steps = check_integer("decay_steps", decay_steps, minimum=1)
        self.final = check_number("final", final, minimum=0.0, maximum=self.peak)
        self.shape = check_choice("shape", shape, ("linear", "cosine", "sqrt"))

    def rate(self, step: tf.Tensor) -> tf.Tensor:
        """See the class."""
        rising = self.peak * step / max(self.warmup_steps, 1)
        fallen = (step - (self.warmup_steps + self.stable_steps)) / self.decay_steps
        falling = self.peak + (self.final - self.peak) * ease(fallen, self.shape)
        return tf.where(step < self.warmup_steps, rising, falling)
