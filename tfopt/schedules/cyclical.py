"""Cyclical learning rates."""

import keras
import tensorflow as tf

from tfopt._checks import check_choice, check_integer, check_number
from tfopt.schedules._schedule import Schedule


@keras.saving.register_keras_serializable(package="tfopt")
class Cyclical(Schedule):
    """Triangle waves between two rates.

    Use it when the best rate is uncertain, or to collect one model per cycle for averaging. For a run
    of known length `OneCycle` or a cosine usually ends lower.

        x = |t / half_cycle_steps - 2 * cycle - 1|,  cycle = floor(t / (2 * half_cycle_steps))
        rate(t) = minimum + (maximum - minimum) * (1 - x) * scale
        scale = 1 ("triangular"), 2^-cycle ("triangular2"), gamma^t ("exp_range")

    Args:
        minimum: The lowest rate, >= 0.
        maximum: The highest rate, > `minimum`.
        half_cycle_steps: Updates from the lowest to the highest rate, >= 1; 2 to 8 epochs' worth.
        mode: "triangular", "triangular2" or "exp_range".
        gamma: Decay per update of "exp_range", in (0, 1].

    Example:
        >>> schedule = tfopt.schedules.Cyclical(1e-4, 1e-2, half_cycle_steps=500, mode="triangular2")

    References:
        Smith, "Cyclical Learning Rates for Training Neural Networks", 2015, arXiv:1506.01186.
    """

    def __init__(
        self,
        minimum: float,
        maximum: float,
        half_cycle_steps: int,
        mode: str = "triangular",
        gamma: float = 0.9999,
    ) -> None:
        self.minimum = check_number("minimum", minimum, minimum=0.0)
        self.maximum = check_number("maximum", maximum, minimum=self.minimum, open_minimum=True)
        self.half_cycle_steps = check_integer("half_cycle_steps", half_cycle_steps, minimum=1)
        self.mode = check_choice("mode", mode, ("triangular", "triangular2", "exp_range"))
        self.gamma = check_number("gamma", gamma, minimum=0.0, maximum=1.0, open_minimum=True)

    def rate(self, step: tf.Tensor) -> tf.Tensor:
        """See the class."""
        cycle = tf.floor(step / (2 * self.half_cycle_steps))
        height = 1.0 - tf.abs(step / self.half_cycle_steps - 2.0 * cycle - 1.0)
        scale = {
            "triangular": lambda: tf.ones_like(step),
            "triangular2": lambda: tf.pow(tf.constant(2.0, tf.float64), -cycle),
            "exp_range": lambda: tf.pow(tf.constant(self.gamma, tf.float64), step),
        }[self.mode]()
        return self.minimum + (self.maximum - self.minimum) * height * scale
