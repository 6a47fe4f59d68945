"""Sets a numeric learning rate from a schedule, between steps."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from tfopt import _keras_internals
from tfopt._checks import check_choice, message
from tfopt.callbacks._rate import rate_of, updates_made
from tfopt.schedules import as_batch_size_schedule


class LearningRateDecay(keras.callbacks.Callback):
    """Follows a schedule in updates, epochs or samples on an optimizer whose rate is a number.

    Use it to change the rate of a compiled or loaded model without recompiling, to schedule by epoch, and
    together with `PlateauDecay` or `BatchSizeRamp`, whose factors multiply it. If none of this applies,
    give the schedule to the optimizer instead: that is free and right within `steps_per_execution`,
    while this callback sets the rate once per execution.

    The clock is the optimizer's count of updates (or the epoch number), so a second `fit`,
    `initial_epoch` and a resumed run go on where the first one ended. Nothing is traced anew.

    Logs: `learning_rate`, per batch and per epoch.

    Args:
        schedule: A Keras or tfopt schedule, or any function of the number of completed units.
        unit: "step", "epoch" or "sample".
        batch_size: For "sample": the batch size or batch-size schedule of the data.

    Raises:
        TypeError: When training begins, if the optimizer already has a schedule.

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
        schedule: LearningRateSchedule | Callable[[int], float],
        unit: str = "step",
        batch_size: Any = None,
    ) -> None:
        super().__init__()
        if not callable(schedule):
            raise TypeError(message("schedule", "a schedule or a function", schedule))
        self.schedule = schedule
        self.unit = check_choice("unit", unit, ("step", "epoch", "sample"))
        if (unit == "sample") != (batch_size is not None):
            raise ValueError(message("batch_size", 'given exactly if unit="sample"', batch_size))
        self.batch_size = None if batch_size is None else as_batch_size_schedule(batch_size)
        self._evaluate: Callable[[Any], Any] = schedule
        self._rate = self._used = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        """Checks the optimizer."""
        if _keras_internals.learning_rate_schedule(self.model.optimizer) is not None:
            raise TypeError(
                "`LearningRateDecay` needs an optimizer with a numeric learning rate. Received: an optimizer "
                "with a schedule. Give the schedule either to the optimizer or to the callback."
            )
        if isinstance(self.schedule, LearningRateSchedule):
            self._evaluate = tf.function(self.schedule, input_signature=[tf.TensorSpec((), tf.int64)])

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Sets the rate of the epoch."""
        if self.unit == "epoch":
            self._set(epoch)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Sets the rate of the next update."""
        if self.unit != "epoch":
            updates = updates_made(self.model.optimizer)
            self._set(updates if self.batch_size is None else self.batch_size.samples_seen(updates))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Logs the rate that was used; a batch that begins need not come, where the data ends."""
        self._used = self._rate
        if logs is not None:
            logs["learning_rate"] = self._used

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs the rate of the last update."""
        if logs is not None:
            logs["learning_rate"] = self._used

    def on_train_end(self, logs: Any = None) -> None:
        """Drops the traced schedule, so that the callback can be copied."""
        self._evaluate = self.schedule

    def _set(self, position: int) -> None:
        rate = rate_of(self.model)
        rate.write_base(float(self._evaluate(position)))
        self._rate = rate.read()
