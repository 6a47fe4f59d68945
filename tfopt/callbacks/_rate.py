"""The learning rate of an optimizer as a base rate times factors, shared by every callback that changes it.

A schedule in the optimizer is multiplied in the graph; a numeric rate is written. So decay, plateau recovery
and the coupling to a batch size compose in any order. A model may train with several optimizers.
"""

import logging
import weakref
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from tfopt import _keras_internals
from tfopt._optimizers_in_use import optimizers_in_use

_LOG = logging.getLogger(__name__)


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
    """Base rate and named factors of one optimizer; get it from `rates_of`."""

    def __init__(self, optimizer: Any) -> None:
        self._reference = weakref.ref(optimizer)  # the table of rates must not keep it alive
        self._factors: dict[str, float] = {}
        self._fixed = 1.0  # what a loaded schedule was scaled by before

    def prepare(self, model: keras.Model) -> None:
        """Makes room for factors in front of a schedule, before training."""
        schedule = _keras_internals.learning_rate_schedule(self.optimizer)
        if isinstance(schedule, ScaledSchedule):
            self._fixed = float(schedule.factor.numpy()) / self._product()
        elif schedule is not None:
            with model.distribute_strategy.scope():
                self.optimizer.learning_rate = ScaledSchedule(schedule)
            model.make_train_function(force=True)  # a function traced before holds the old schedule

    def read(self) -> float:
        """The rate that the next update will use."""
        return _value(self.optimizer)

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
        if _keras_internals.learning_rate_schedule(self.optimizer) is None:
            self._write(self.read() / before * self._product())

    def restore_factor(self, owner: str, factor: float) -> None:
        """The same, if the optimizer's variables have been restored: a numeric rate has it already."""
        self._factors[owner] = factor
        schedule = _keras_internals.learning_rate_schedule(self.optimizer)
        if isinstance(schedule, ScaledSchedule):
            schedule.factor.assign(self._fixed * self._product())

    @property
    def optimizer(self) -> Any:
        """Whose rate it is."""
        return self._reference()

    def _product(self) -> float:
        return float(np.prod(list(self._factors.values())))

    def _write(self, rate: float) -> None:
        if np.float32(rate) != np.float32(self.read()):
            self.optimizer.learning_rate = rate


_RATES: "weakref.WeakKeyDictionary[Any, Rate]" = weakref.WeakKeyDictionary()


def rates_of(model: keras.Model) -> dict[str, Rate]:
    """The one `Rate` of each optimizer in use, by its name."""
    found = {}
    for name, optimizer in rated_optimizers(model).items():
        if optimizer not in _RATES:
            _RATES[optimizer] = Rate(optimizer)
        found[name] = _RATES[optimizer]
    return found


def rated_optimizers(model: keras.Model) -> dict[str, Any]:
    """The optimizers in use, by name; the parts of a `MultiOptimizer` in its place: each has its own rate."""
    found: dict[str, Any] = {}
    in_use = optimizers_in_use(model)
    for name, optimizer in in_use.items():
        core = _keras_internals.innermost(optimizer)
        if not _keras_internals.is_multi_optimizer(core):
            found[name] = optimizer
            continue
        _add_parts(found, name if len(in_use) > 1 else "", core.optimizers)
    return found


def _add_parts(found: dict[str, Any], owner: str, parts: list[Any]) -> None:
    """Adds optimizers under their own names, numbered where these are equal."""
    for part in parts:
        name = full = f"{owner}.{part.name}" if owner else part.name
        number = 0
        while name in found:
            number += 1
            name = f"{full}_{number}"
        found[name] = part


def gradient_takers(model: keras.Model) -> dict[str, Any]:
    """The optimizers without wrappers that a model is trained by, and those of groups, by name."""
    found: dict[str, Any] = {}
    rated = rated_optimizers(model)
    for name, optimizer in rated.items():
        inner = _keras_internals.innermost_of_all(optimizer)
        if len(inner) == 1:
            found[name] = inner[0]
        else:
            _add_parts(found, name if len(rated) > 1 else "", inner)
    return found


def learning_rates(rates: dict[str, Rate]) -> dict[str, float]:
    """For the logs: `learning_rate`, or `learning_rate_<name>` for each of several optimizers."""
    return suffixed("learning_rate", {name: rate.read() for name, rate in rates.items()})


def suffixed(log: str, values: dict[str, float]) -> dict[str, float]:
    """The name of a log, with that of the optimizer if there are several."""
    return {log if len(values) == 1 else f"{log}_{name}": value for name, value in values.items()}


def only_optimizer(model: keras.Model, what: str, fix: str) -> Any:
    """The optimizer that trains a model, for a callback that can act on one only.

    Raises:
        ValueError: If there are several, with their names.
    """
    found = rated_optimizers(model)
    if len(found) != 1:
        raise ValueError(
            f"`{what}` can act on one optimizer only. Received: a model that is trained by "
            f"{len(found)}, {sorted(found)}. {fix}"
        )
    return next(iter(optimizers_in_use(model).values()))


class Progress:
    """Notices that what a callback acts on does not train the model, which has other optimizers."""

    def __init__(self, callback: keras.callbacks.Callback, model: keras.Model) -> None:
        self._kind, self._model = type(callback).__name__, weakref.ref(model)
        self._optimizers = optimizers_in_use(model)
        self._before = self._counts()

    def is_missing(self) -> bool:
        """Whether none of the optimizers made an update, and none is waiting to make one."""
        model: Any = self._model()
        if self._counts() != self._before or not model.trainable_variables:
            return False
        return not any(_may_wait(optimizer) for optimizer in self._optimizers.values())

    def check(self) -> None:
        """Call it when batches were trained on.

        Raises:
            ValueError: If the optimizers do not train the model.
        """
        if not self.is_missing():
            return
        model: Any = self._model()
        named = ", ".join(f"`{name}` ({type(each).__name__})" for name, each in self._optimizers.items())
        raise ValueError(
            f"`{self._kind}` acts on the optimizer {named}, which made no update in this epoch: something "
            f"else trains `{model.name}`. Make its optimizers attributes of the model, as in "
            "`self.generator_optimizer = generator_optimizer`, and they will be found."
        )

    def warn(self) -> None:
        """Like `check`, for a callback that is of use to a model which changes its weights itself."""
        if self.is_missing():
            model: Any = self._model()
            _LOG.warning(
                "%s: no optimizer that could be found made an update. If one trains `%s`, its state is "
                "not saved. Make it an attribute of the model, as in `self.g_optimizer = g_optimizer`.",
                self._kind,
                model.name,
            )

    def _counts(self) -> list[int]:
        return [updates_made(optimizer) for optimizer in self._optimizers.values()]


def _may_wait(optimizer: Any) -> bool:
    """Whether an optimizer may have seen gradients without an update: sums under way, a skipped step."""
    while optimizer is not None:
        waits = isinstance(optimizer, keras.optimizers.LossScaleOptimizer) or hasattr(optimizer, "set_steps")
        if waits or optimizer.gradient_accumulation_steps:
            return True
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return False


def _value(optimizer: Any) -> float:
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def updates_made(optimizer: Any) -> int:
    """The optimizer's count of updates."""
    return int(keras.ops.convert_to_numpy(optimizer.iterations))
