"""Throughput, waiting for data, batch size, learning rate and norms, in the logs."""

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt import _keras_internals
from tfopt._checks import check_integer
from tfopt.callbacks._fit_end import FitEnd
from tfopt.callbacks._rate import Progress, gradient_takers, learning_rates, rates_of, suffixed
from tfopt.callbacks._state import StatefulCallback


class Counters:
    """Variables that the training function counts in: samples, steps, and seconds without data."""

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        with tf.device("CPU:0"):
            self.samples = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.steps = tf.Variable(0, dtype=tf.int64, trainable=False)
            self.waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)
            self.ended = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    def before(self, data: Any) -> None:
        """Counts a batch of data that has just come, for all replicas."""
        leaf = next(leaf for leaf in tf.nest.flatten(data) if not isinstance(leaf, tf.experimental.Optional))
        parts = self._strategy.experimental_local_results(leaf)
        rows = tf.add_n([tf.shape(part, tf.int64)[0] for part in parts])
        with tf.control_dependencies([rows]):
            self.waited.assign_add(tf.timestamp() - self.ended)
            self.samples.assign_add(rows * (self._strategy.num_replicas_in_sync // len(parts)))
            self.steps.assign_add(1)

    def after(self, outputs: Any) -> None:
        """Marks the end of a step within an execution of several."""
        parts = [p for leaf in tf.nest.flatten(outputs) for p in tf.nest.flatten(leaf) if tf.is_tensor(p)]
        with tf.control_dependencies(parts):
            self.ended.assign(tf.timestamp())

    def read(self) -> np.ndarray:
        """Samples, steps, seconds waited."""
        return np.array([float(v.numpy()) for v in (self.samples, self.steps, self.waited)])


class TrainingMonitor(StatefulCallback):
    """Logs how fast training goes, what it waits for, and how large its steps are, for every epoch.

    Use it always: it costs well under a percent. Put it before `CSVLogger` and `TensorBoard`, which then
    show its values; `History` does in any case.

    Logs:
        images_per_second: Samples per second of training, validation and the first execution (which
            traces and compiles) not counted.
        data_wait: Share of that time in which training waited for the input pipeline, 0 to 1.
        batch_size: Mean number of samples per step.
        learning_rate: Rate of the next update; `learning_rate_<name>` for each of several optimizers.
        gradient_norm, update_norm, weight_norm: With `norms_every`, means over the epoch: of the summed
            gradient as the optimizer gets it, of the change in one execution, and of the weights. Of several
            optimizers also `gradient_norm_<name>`, of the last update of each in an execution.

    Args:
        norms_every: Batches between two looks at the norms, >= 1; None is never. Costs a copy of the
            weights.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> monitor = tfopt.callbacks.TrainingMonitor(norms_every=1)
        >>> history = model.fit(np.ones((8, 4)), np.ones(8), batch_size=4, callbacks=[monitor], verbose=0)
        >>> sorted(set(history.history) - {"loss"})
        ['batch_size', 'data_wait', 'gradient_norm', 'images_per_second', ... 'weight_norm']
    """

    def __init__(self, norms_every: int | None = None) -> None:
        super().__init__()
        self.norms_every = (
            None if norms_every is None else check_integer("norms_every", norms_every, minimum=1)
        )
        self._counters: Any = None  # made when training begins: a copy of this callback shares nothing
        self._norms: Any = None
        self._stop: list[Callable[[], None]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Puts the counters into the training function."""
        self._counters = self._counters or Counters(self.model.distribute_strategy)
        self._end()  # of a `fit` that an exception ended, else every batch would count twice
        if self.norms_every is not None:
            self._norms = self._norms or Norms(self.model)
            self._stop.append(self._norms.attach(self.model))
        self._stop.append(
            _keras_internals.observe_batches(self.model, self._counters.before, self._counters.after)
        )
        self._fit_end = FitEnd(self._end)
        self._rates = rates_of(self.model)
        self._progress = Progress(self, self.model)
        self._first = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts to count anew."""
        self._batches = 0
        self._restart()
        if self._norms is not None:
            self._norms.seen = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Waiting begins here."""
        if self._looks_at_norms():
            self._norms.remember()
        if self._batches == 0:
            self._clock = time.perf_counter()
        self._counters.ended.assign(time.time())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stops the clock; the first execution of a run only warms up."""
        self._seconds = time.perf_counter() - self._clock
        if self._looks_at_norms():
            self._norms.look()
        self._batches += 1
        if self._first:
            self._first = False
            self._warm_up = self._counters.read(), self._seconds
            self._restart()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes the epoch's values into the logs."""
        (samples, steps, waited), seconds = self._counters.read(), self._seconds
        if steps == 0:  # the epoch was one execution
            (samples, steps, waited), seconds = self._warm_up
        logs = {} if logs is None else logs
        logs["images_per_second"] = float(samples / seconds)
        logs["data_wait"] = float(min(max(waited / seconds, 0.0), 1.0))
        logs["batch_size"] = float(samples / steps)
        self._progress.check()
        logs.update(learning_rates(self._rates))
        if self._norms is not None:
            logs.update(self._norms.means())

    def on_train_end(self, logs: Any = None) -> None:
        """Leaves later training functions alone."""
        self._fit_end.now()

    def _end(self) -> None:
        for stop in self._stop:
            stop()
        self._stop = []

    def get_state(self) -> dict[str, Any]:
        """Norms of the epoch so far; clocks and counters of another process mean nothing here."""
        return {} if self._norms is None else {"seen": self._norms.seen}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores the norms: batches that `Resume` passes by have none."""
        if self._norms is not None:
            self._norms.seen = list(state.get("seen", []))

    def _looks_at_norms(self) -> bool:
        return self.norms_every is not None and self._batches % self.norms_every == 0

    def _restart(self) -> None:
        self._clock, self._seconds = time.perf_counter(), 0.0
        for counter in (self._counters.samples, self._counters.steps, self._counters.waited):
            counter.assign(tf.zeros((), counter.dtype))


class Norms:
    """Norms of the gradient, the update and the weights, of single executions."""

    def __init__(self, model: keras.Model) -> None:
        # Before all: a wrapper that is built takes the sum away from its inner optimizer.
        _keras_internals.build_for_training(model, None)
        self._takers = gradient_takers(model)
        with model.distribute_strategy.scope():
            self._gradients = {
                name: keras.Variable(0.0, trainable=False, aggregation="only_first_replica")
                for name in self._takers
            }
        self.seen: list[dict[str, float]] = []

    def attach(self, model: keras.Model) -> Callable[[], None]:
        """Measures the gradient inside the training function, made anew by whoever calls this."""
        self._weights = list(model.trainable_variables)
        self._before: list[tf.Tensor] = []
        stops = [self._observe(name, optimizer) for name, optimizer in self._takers.items()]

        def stop() -> None:
            for each in stops:
                each()

        return stop

    def _observe(self, name: str, optimizer: Any) -> Callable[[], None]:
        norm = self._gradients[name]
        return _keras_internals.observe_gradients(
            optimizer, lambda _, sums: norm.assign(_norm([g for g in sums if g is not None]))
        )

    def remember(self) -> None:
        """Keeps the weights before an update."""
        self._before = [keras.ops.copy(v) for v in self._weights]

    def look(self) -> None:
        """Takes the three norms after it."""
        now = [keras.ops.convert_to_tensor(v) for v in self._weights]
        change = [a - b for a, b in zip(now, self._before)]
        parts = {name: float(keras.ops.convert_to_numpy(norm)) for name, norm in self._gradients.items()}
        self.seen.append(
            {
                **suffixed("gradient_norm", parts),
                "gradient_norm": math.hypot(*parts.values()),
                "update_norm": float(_norm(change)),
                "weight_norm": float(_norm(now)),
            }
        )

    def means(self) -> dict[str, float]:
        """Mean norms since `seen` was emptied."""
        return (
            {name: float(np.mean([each[name] for each in self.seen])) for name in self.seen[0]}
            if self.seen
            else {}
        )


def _norm(values: list) -> tf.Tensor:
    """The norm over all values, which may have several float types."""
    return tf.linalg.global_norm([_float32(value) for value in values])


def _float32(value: Any) -> Any:
    if isinstance(value, tf.IndexedSlices):
        return tf.IndexedSlices(tf.cast(value.values, tf.float32), value.indices, value.dense_shape)
    return tf.cast(value, tf.float32)
