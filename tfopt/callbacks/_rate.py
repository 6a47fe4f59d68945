"""The learning rate of an optimizer as a base rate times factors, shared by every callback that changes it.

A schedule in `compile` is multiplied in the graph; a numeric rate is written. So decay, plateau recovery
and the coupling to a batch size compose in any order.
"""

import weakref
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from tfopt import _keras_internals


@keras.saving.register_keras_serializable(package="tfopt")
class ScaledSchedule(LearningRateSchedule):
    """Another schedule times a factor that callbacks change between steps.

    Args:
        schedule: The schedule given to `compile`.
        factor: First value of the factor.
    """

    def __init__(self, schedule: LearningRateSchedule, factor: float = 1.0) -> None:
        self.schedule = schedule
        first = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.factor = tf.Variable(factor, dtype=keras.config.floatx(), trainable=False, aggregation=first)

    def __call__(self, step: Any) -> tf.Tensor:
        """The scaled rate of update `step`."""
        return tf.cast(self.schedule(step), self.factor.dtype) * self.factor

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, the factor as it is now."""
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "factor": float(self.factor.numpy()),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ScaledSchedule":
        """The inverse of `get_config`."""
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["factor"])


class Rate:
    """Base rate and named factors of one optimizer; get it from `rate_of`."""

    def __init__(self, model: keras.Model) -> None:
        self._reference = weakref.ref(model.optimizer)  # the table of rates must not keep it alive
        self._factors: dict[str, float] = {}
        self._fixed = 1.0  # what a loaded schedule was scaled by before

    def prepare(self, model: keras.Model) -> None:
        """Makes room for factors in front of a schedule, before training."""
        schedule = _keras_internals.learning_rate_schedule(self._optimizer)
        if isinstance(schedule, ScaledSchedule):
            self._fixed = float(schedule.factor.numpy()) / self._product()
        elif schedule is not None:
            with model.distribute_strategy.scope():
                self._optimizer.learning_rate = ScaledSchedule(schedule)
            model.make_train_function(force=True)  # a function traced before holds the old schedule

    def read(self) -> float:
        """The rate that the next update will use."""
        return _value(self._optimizer)

    def write_base(self, base: float) -> None:
        """Sets a numeric rate, before factors."""
        self._write(base * self._product())

    def factor(self, owner: str) -> float:
        """The factor of one owner, 1 by default."""
        return self._factors.get(owner, 1.0)

    def set_factor(self, owner: str, factor: float) -> None:
        """Multiplies the rate by a factor in place of the owner's former one."""
        if factor == self.factor(owner):
            return
        before = self._product()
        self.restore_factor(owner, factor)
        if _keras_internals.learning_rate_schedule(self._optimizer) is None:
            self._write(self.read() / before * self._product())

    def restore_factor(self, owner: str, factor: float) -> None:
        """The same, if the optimizer's variables have been restored: a numeric rate has it already."""
        self._factors[owner] = factor
        schedule = _keras_internals.learning_rate_schedule(self._optimizer)
        if isinstance(schedule, ScaledSchedule):
            schedule.factor.assign(self._fixed * self._product())

    @property
    def _optimizer(self) -> Any:
        return self._reference()

    def _product(self) -> float:
        return float(np.prod(list(self._factors.values())))

    def _write(self, rate: float) -> None:
        if np.float32(rate) != np.float32(self.read()):
            self._optimizer.learning_rate = rate


_RATES: "weakref.WeakKeyDictionary[Any, Rate]" = weakref.WeakKeyDictionary()


def rate_of(model: keras.Model) -> Rate:
    """The one `Rate` of a compiled model's optimizer.

    Raises:
        TypeError: If the optimizer is several.
    """
    if _keras_internals.is_multi_optimizer(_keras_internals.innermost(model.optimizer)):
        raise TypeError(
            "A callback can change the learning rate of one optimizer only. Received: a `MultiOptimizer`. "
            "Use `tfopt.optimizers.ParameterGroups`, which has one rate and multipliers."
        )
    if model.optimizer not in _RATES:
        _RATES[model.optimizer] = Rate(model)
    return _RATES[model.optimizer]


def rates(optimizer: Any) -> dict[str, float]:
    """`learning_rate` for the logs; one entry per part of Keras's `MultiOptimizer`."""
    if _keras_internals.is_multi_optimizer(optimizer):
        return {f"learning_rate_{part.name}": _value(part) for part in optimizer.optimizers}
    return {"learning_rate": _value(optimizer)}


def _value(optimizer: Any) -> float:
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def updates_made(optimizer: Any) -> int:
    """The optimizer's count of updates."""
    return int(keras.ops.convert_to_numpy(optimizer.iterations))
