"""Sets a numeric learning rate from a schedule, between steps."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from tfopt import _keras_internals
from tfopt._checks import check_choice, message
from tfopt.callbacks._rate import Progress, Rate, rates_of, suffixed, updates_made
from tfopt.callbacks._state import KerasCallback
from tfopt.schedules import as_batch_size_schedule

Schedule: TypeAlias = LearningRateSchedule | Callable[[int], float]


class LearningRateDecay(KerasCallback):
    """Follows a schedule in updates, epochs or samples on an optimizer whose rate is a number.

    Use it to change the rate of a compiled or loaded model without recompiling, to schedule by epoch, and
    together with `PlateauDecay` or `BatchSizeRamp`, whose factors multiply it. If none of this applies,
    give the schedule to the optimizer instead: that is free and right within `steps_per_execution`,
    while this callback sets the rate once per execution.

    The clock is the optimizer's count of updates (or the epoch number), so a second `fit`,
    `initial_epoch` and a resumed run go on where the first one ended. Nothing is traced anew.

    Logs: `learning_rate`, per batch and per epoch; of several optimizers `learning_rate_<name>`.

    Args:
        schedule: A Keras or tfopt schedule, or any function of the number of completed units. For a model
            that is trained by several optimizers, a dict of these by the name of the optimizer, which is the
            attribute that holds it: `{"g_opt": cosine}`. Optimizers that are left out keep their rates.
        unit: "step", "epoch" or "sample".
        batch_size: For "sample": the batch size or batch-size schedule of the data.

    Raises:
        TypeError: When training begins, if the optimizer already has a schedule.
        ValueError: When training begins, if the model has other optimizers than `schedule`; after an
            epoch, if the optimizers that were found have not trained the model.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.Adam(1e-3), "mse")
        >>> cosine = keras.optimizers.schedules.CosineDecay(1e-3, decay_steps=20)
        >>> decay = tfopt.callbacks.LearningRateDecay(cosine, unit="epoch")
        >>> history = model.fit(np.ones((8, 4)), np.ones(8), epochs=3, callbacks=[decay], verbose=0)
        >>> [round(rate, 6) for rate in history.history["learning_rate"]]
        [0.001, 0.000994, 0.000976]

    Differs from Keras's `LearningRateScheduler`: per update or sample too, exact after a restart, logs
    for every epoch, composes with other callbacks.
    """

    def __init__(
        self,
        schedule: Schedule | Mapping[str, Schedule],
        unit: str = "step",
        batch_size: Any = None,
    ) -> None:
        super().__init__()
        for each in schedule.values() if isinstance(schedule, Mapping) else (schedule,):
            if not callable(each):
                raise TypeError(message("schedule", "a schedule, a function, or a dict of these", each))
        self.schedule = schedule
        self.unit = check_choice("unit", unit, ("step", "epoch", "sample"))
        if (unit == "sample") != (batch_size is not None):
            raise ValueError(message("batch_size", 'given exactly if unit="sample"', batch_size))
        self.batch_size = None if batch_size is None else as_batch_size_schedule(batch_size)
        self._evaluate: dict[str, Schedule] = {}
        self._now: dict[str, float] = {}
        self._used: dict[str, float] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        """Checks the optimizers."""
        self._rates = rates_of(self.model)
        self._progress = Progress(self, self.model)
        for name, schedule in self._schedules().items():
            if _keras_internals.learning_rate_schedule(self._rates[name].optimizer) is not None:
                raise TypeError(
                    "`LearningRateDecay` needs an optimizer with a numeric learning rate. Received: "
                    f"`{name}` with a schedule. Give the schedule either to the optimizer or to the callback."
                )
            if isinstance(schedule, LearningRateSchedule):
                schedule = tf.function(schedule, input_signature=[tf.TensorSpec((), tf.int64)])
            self._evaluate[name] = schedule

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Sets the rate of the epoch."""
        if self.unit == "epoch":
            self._set(lambda rate: epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Sets the rate of the next update."""
        if self.unit != "epoch":
            self._set(self._place)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Logs the rate that was used; a batch that begins need not come, where the data ends."""
        self._used = self._now
        if logs is not None:
            logs.update(suffixed("learning_rate", self._used))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs the rate of the last update."""
        self._progress.check()
        if logs is not None:
            logs.update(suffixed("learning_rate", self._used))

    def on_train_end(self, logs: Any = None) -> None:
        """Drops the traced schedule, so that the callback can be copied."""
        self._evaluate = {}

    def _schedules(self) -> Mapping[str, Schedule]:
        """The schedule of each optimizer that has one."""
        names = sorted(self._rates)
        if isinstance(self.schedule, Mapping):
            if not self.schedule or not set(self.schedule) <= set(names):
                raise ValueError(message("schedule", f"of the optimizers {names}", sorted(self.schedule)))
            return self.schedule
        if len(names) > 1:
            fix = "One schedule would give them all the same rate."
            expected = f"a dict of schedules by name, as the model is trained by the optimizers {names}"
            raise ValueError(message("schedule", expected, self.schedule, fix))
        return {names[0]: self.schedule}

    def _place(self, rate: Rate) -> int:
        updates = updates_made(rate.optimizer)
        return updates if self.batch_size is None else self.batch_size.samples_seen(updates)

    def _set(self, place: Callable[[Rate], int]) -> None:
        for name, schedule in self._evaluate.items():
            rate = self._rates[name]
            rate.write_base(float(schedule(place(rate))))
        self._now = {name: rate.read() for name, rate in self._rates.items()}
