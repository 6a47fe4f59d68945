"""The base of tfopt's learning-rate schedules: float64 arithmetic, and a config read from the constructor."""

import abc
import inspect
from typing import Any

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule as KerasSchedule

from tfopt._checks import check_instance, check_number


class Schedule(KerasSchedule, abc.ABC):
    """A pure function of the update number, computed in float64 and returned in Keras's float type.

    Subclasses store every constructor argument under its own name and implement `rate`.
    """

    def __call__(self, step: Any) -> tf.Tensor:
        """The rate of update `step`, counted from 0."""
        return tf.cast(self.rate(tf.cast(step, tf.float64)), keras.config.floatx())

    @abc.abstractmethod
    def rate(self, step: tf.Tensor) -> tf.Tensor:
        """The rate of a float64 update number, as float64."""

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, nested schedules serialized."""
        names = inspect.signature(type(self)).parameters
        return {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in names}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Schedule":
        """The inverse of `get_config`."""
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})


def check_rate(name: str, value: Any) -> KerasSchedule | float:
    """A schedule as it is, or a constant rate >= 0 as a float."""
    if isinstance(value, KerasSchedule):
        return value
    check_instance(name, value, (KerasSchedule, int, float))
    return check_number(name, value, minimum=0.0)


def rate_at(schedule: KerasSchedule | float, step: tf.Tensor) -> tf.Tensor:
    """The value of a schedule or of a constant rate, as float64."""
    value = schedule(step) if isinstance(schedule, KerasSchedule) else schedule
    return tf.cast(value, tf.float64)


def ease(fraction: tf.Tensor, shape: str) -> tf.Tensor:
    """Rises from 0 to 1 with `fraction`, which is cut to [0, 1]: "linear", "cosine" or "sqrt"."""
    fraction = tf.clip_by_value(fraction, 0.0, 1.0)
    if shape == "cosine":
        return 0.5 - 0.5 * tf.cos(tf.constant(3.141592653589793, tf.float64) * fraction)
    return tf.sqrt(fraction) if shape == "sqrt" else fraction
