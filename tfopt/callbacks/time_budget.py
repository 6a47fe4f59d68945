"""Stops training when its time is used up."""

import time
from typing import Any

import tensorflow as tf

from tfopt._checks import check_number
from tfopt.callbacks._state import StatefulCallback


class TimeBudget(StatefulCallback):
    """Ends `fit` after so many seconds of training, at the next batch.

    Use it to fit a run into a slot. The validation and the other callbacks of the last epoch still run, so
    leave room for them. A run continued by `Resume` counts the time before the interruption. With several
    workers the budget is looked at when an epoch ends, by common decision.

    Args:
        seconds: Wall-clock seconds from the beginning of `fit`, > 0.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> budget = tfopt.callbacks.TimeBudget(seconds=0.001)
        >>> history = model.fit(np.ones((8, 4)), np.ones(8), epochs=99, callbacks=[budget], verbose=0)
        >>> len(history.epoch)
        1

    Differs from TensorFlow Addons' `TimeStopping`: stops within an epoch, survives a restart.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = check_number("seconds", seconds, minimum=0.0, open_minimum=True)
        self._begin = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts the clock."""
        self._begin = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stops if the time is over."""
        if self._elapsed() > self.seconds and not self._has_several_workers():
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Stops all workers if the time of any is over: one that goes on alone would wait for ever."""
        over = self._elapsed() > self.seconds
        if self._has_several_workers():
            strategy = self.model.distribute_strategy
            flags = strategy.run(lambda: tf.constant(float(over)))
            over = float(strategy.reduce(tf.distribute.ReduceOp.SUM, flags, axis=None)) > 0
        if over:
            self.model.stop_training = True

    def get_state(self) -> dict[str, Any]:
        """Seconds used."""
        return {"elapsed": self._elapsed()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Starts the clock where the interrupted run stopped it."""
        self._begin = time.monotonic() - state["elapsed"]

    def _elapsed(self) -> float:
        return time.monotonic() - self._begin

    def _has_several_workers(self) -> bool:
        return isinstance(self.model.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy)
