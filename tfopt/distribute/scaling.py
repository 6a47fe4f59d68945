"""`scale_learning_rate`: the rate that several replicas need, because their batch is larger."""

from typing import Any

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule as KerasSchedule

from tfopt._checks import check_choice, check_integer, check_number
from tfopt.schedules import Warmup


@keras.saving.register_keras_serializable(package="tfopt")
class Scaled(KerasSchedule):
    """Another schedule times a factor.

    Args:
        schedule: A Keras schedule.
        factor: Number > 0.

    Example:

    >>> twice = tfopt.distribute.Scaled(keras.optimizers.schedules.CosineDecay(0.1, 1000), 2.0)
    """

    def __init__(self, schedule: KerasSchedule, factor: float) -> None:
        self.schedule = schedule
        self.factor = check_number("factor", factor, minimum=0.0, open_minimum=True)

    def __call__(self, step: Any) -> tf.Tensor:
        """The rate of update `step`."""
        return self.schedule(step) * self.factor

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "factor": self.factor}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Scaled":
        """The inverse of `get_config`."""
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["factor"])


def scale_learning_rate(
    learning_rate: float | KerasSchedule,
    strategy: tf.distribute.Strategy,
    rule: str = "linear",
    *,
    warmup_steps: int = 0,
) -> float | KerasSchedule:
    """Scales a rate that was tuned on one replica to all replicas of a strategy.

    Use it when each replica keeps the batch size that one device had, so that the global batch grows. Not
    when the global batch stays the same: then nothing changes.

    "linear" (times the replicas) suits SGD and momentum; "sqrt" suits Adam and its relatives, and any
    optimizer with batches beyond some thousands. Give both a warm-up of some epochs from the old rate. Past
    the point where the gradient noise is gone neither helps; use LARS or LAMB there.

    Args:
        learning_rate: Number > 0, or a schedule, for one replica.
        strategy: What the model trains under.
        rule: "linear" or "sqrt".
        warmup_steps: Updates in which the rate rises linearly from the unscaled one, >= 0.

    Returns:
        A number, or a schedule if `learning_rate` is one or there is a warm-up.

    Example:

    >>> rate = tfopt.distribute.scale_learning_rate(0.1, strategy, warmup_steps=500)
    >>> optimizer = tfopt.optimizers.SGD(rate, momentum=0.9)

    References:
        Goyal et al., "Accurate, Large Minibatch SGD", 2017, arXiv:1706.02677 (linear, warm-up).
        Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014,
        arXiv:1404.5997 (sqrt). Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient
        Algorithms", 2022, arXiv:2205.10287 (sqrt for Adam).
    """
    check_choice("rule", rule, ("linear", "sqrt"))
    check_integer("warmup_steps", warmup_steps, minimum=0)
    replicas = strategy.num_replicas_in_sync
    factor = float(replicas) if rule == "linear" else replicas**0.5
    if isinstance(learning_rate, KerasSchedule):
        initial = float(learning_rate(0))
        scaled: float | KerasSchedule = Scaled(learning_rate, factor)
    else:
        initial = check_number("learning_rate", learning_rate, minimum=0.0, open_minimum=True)
        scaled = initial * factor
    return Warmup(scaled, warmup_steps, initial=initial) if warmup_steps and replicas > 1 else scaled
