"""Measures how noisy the gradient is, as the batch size from which on larger batches help little."""

import math
import weakref
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfopt import _keras_internals
from tfopt._checks import check_number
from tfopt.callbacks import _snapshot
from tfopt.callbacks._coupling import accumulation_in
from tfopt.callbacks._fit_end import FitEnd
from tfopt.callbacks._rate import Progress, only_optimizer
from tfopt.callbacks._state import StatefulCallback
from tfopt.optimizers._wrapper import OptimizerWrapper


class NoiseMeter:
    """Variables and graph operations of the measurement; see `GradientNoiseScale` for the formulas."""

    def __init__(self, strategy: tf.distribute.Strategy, decay: float, replicas: int) -> None:
        self._strategy, self._decay, self._replicas = strategy, decay, replicas
        names = ("rows", "parts", "squares", "noise", "signal")
        options = {"trainable": False, "aggregation": "only_first_replica", "synchronization": "on_read"}
        with strategy.scope():
            self.variables = [keras.Variable(0.0, dtype="float32", name=name, **options) for name in names]
        self._rows, self._parts, self._squares, self._noise, self._signal = self.variables

    def count(self, data: Any) -> None:
        """Notes the number of samples of a part, from the data of one call."""
        leaf = next(leaf for leaf in tf.nest.flatten(data) if not isinstance(leaf, tf.experimental.Optional))
        rows = [tf.shape(part)[0] for part in self._strategy.experimental_local_results(leaf)]
        per_part = tf.add_n(rows) * (self._strategy.num_replicas_in_sync // len(rows)) / self._replicas
        self._rows.assign(tf.cast(per_part, tf.float32))

    def add(self, gradients: list) -> None:
        """Takes the gradient of a part, in replica context; Keras divided it by the number of replicas."""
        self._squares.value.assign_add(self._replicas**2 * _square(gradients))
        self._parts.value.assign_add(1.0)

    def close(self, gradients: list) -> None:
        """Takes the mean gradient over all parts since the last call of this."""
        squares, count = self._squares.value.read_value(), self._parts.value.read_value() * self._replicas
        if self._replicas > 1:
            context = tf.distribute.get_replica_context()
            squares = context.all_reduce(tf.distribute.ReduceOp.SUM, squares)
        small, big = squares / count, _square(gradients)
        others = tf.maximum(count - 1.0, 1.0)
        signal = (count * big - small) / others
        noise = (small - big) * count / others * self._rows.value.read_value()
        share = tf.where(count > 1.0, 1.0 - self._decay, 0.0)  # one part tells nothing
        for average, value in ((self._signal, signal), (self._noise, noise)):
            average.value.assign_add(share * (value - average.value.read_value()))
        self._squares.value.assign(0.0)
        self._parts.value.assign(0.0)

    def read(self) -> float:
        """The noise scale in samples; infinite while no signal stands out, NaN before the first update."""
        noise, signal = (float(keras.ops.convert_to_numpy(v)) for v in (self._noise, self._signal))
        if noise == signal == 0.0:
            return math.nan
        return max(noise, 0.0) / signal if signal > 0.0 else math.inf


class GradientNoiseScale(StatefulCallback):
    """Logs the gradient noise scale, a measure of how large a batch is worth while.

    Well below it, doubling the batch saves nearly half of the updates; well above, next to none. It grows
    as training goes on, usually manyfold, which is why batch-size ramps work. `NoiseScaleRamp` follows it.
    It is measured on the way, from parts of the batch: the batches that `GradientAccumulation` adds up,
    the replicas of a strategy, or both. With n parts of b samples, gradients g_i and their mean g:

        signal = (n |g|^2 - mean |g_i|^2) / (n - 1)             estimates |true gradient|^2
        noise  = (mean |g_i|^2 - |g|^2) n b / (n - 1)           estimates the trace of its covariance
        noise scale = mean of noise / mean of signal            both averaged over updates

    Parts should be of the same size (`drop_remainder`). A learning rate, a clipping or a loss scale does
    not matter; what a wrapper outside of the accumulation does to the gradient, does.

    Logs: `noise_scale`, in samples, per epoch; infinite while no signal stands out.

    Cost: the norm of each part's gradient.

    Args:
        smoothing: Share that both averages keep at an update, in [0, 1): 0.99 averages about 100 updates.

    Raises:
        ValueError: When training begins, if a batch has one part only, or the model is trained by several
            optimizers.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> optimizer = tfopt.optimizers.GradientAccumulation(keras.optimizers.SGD(0.01), steps=4)
        >>> model.compile(optimizer, "mse")
        >>> x, y = np.random.default_rng(0).normal(size=(2, 64, 4))
        >>> noise = tfopt.callbacks.GradientNoiseScale()
        >>> history = model.fit(x, y[:, :1], batch_size=4, epochs=2, callbacks=[noise], verbose=0)
        >>> [scale > 0 for scale in history.history["noise_scale"]]
        [True, True]

    References:
        McCandlish et al., "An Empirical Model of Large-Batch Training", 2018, arXiv:1812.06162 (appendix A).
    """

    def __init__(self, smoothing: float = 0.99) -> None:
        super().__init__()
        self.smoothing = check_number("smoothing", smoothing, minimum=0.0, maximum=1.0, open_maximum=True)
        self._meter: Any = None  # made when training begins: a copy of this callback shares nothing
        self._measured: Callable[[], Any] = _nothing
        self._stop: list[Callable[[], Any]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Puts the measurement into the training step."""
        self._end()  # of a `fit` that an exception ended, else every part would count twice
        model = self.model
        _keras_internals.build_for_training(model, None)  # a wrapper that is built changes who sums
        fix = "Measure one part of the model, trained by its optimizer alone."
        self._optimizer = only_optimizer(model, "GradientNoiseScale", fix)
        accumulation, summed = accumulation_in(self._optimizer)
        replicas = model.distribute_strategy.num_replicas_in_sync
        if accumulation is None and replicas == 1:
            raise ValueError(
                "`GradientNoiseScale` needs batches of several parts. Received: one replica and no "
                "accumulation. Wrap the optimizer in `GradientAccumulation(optimizer, steps=2)`."
            )
        if self._measured() is not model:
            parts = 1 if accumulation is not None and summed else replicas
            self._meter = NoiseMeter(model.distribute_strategy, self.smoothing, parts)
            self._measured = weakref.ref(model)
        self._fit_end = FitEnd(self._end)
        self._progress = Progress(self, model)
        self._stop = self._attach(accumulation)
        self._stop.append(_keras_internals.observe_batches(model, self._meter.count, _nothing))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs the noise scale."""
        self._progress.check()
        if logs is not None:
            logs["noise_scale"] = self._meter.read()

    def on_train_end(self, logs: Any = None) -> None:
        """Leaves later training functions alone."""
        self._fit_end.now()

    def _end(self) -> None:
        for stop in self._stop:
            stop()
        self._stop = []

    def get_state(self) -> dict[str, Any]:
        """Averages and sums under way."""
        return {"values": _snapshot.read_variables(self._meter.variables, self.model.distribute_strategy)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores them."""
        strategy = self.model.distribute_strategy
        _snapshot.write_variables(self._meter.variables, state["values"], strategy)

    def _attach(self, accumulation: Any) -> list[Callable[[], None]]:
        meter = self._meter
        if accumulation is None:

            def observe(gradients: list, sums: list) -> None:
                meter.add(gradients)
                meter.close(sums)

            return [_keras_internals.observe_gradients(_summing(self._optimizer), observe)]
        step = accumulation.step

        def observed_step(gradients: list, variables: list) -> None:
            meter.add(gradients)
            step(gradients, variables)

        accumulation.step = observed_step
        close = _keras_internals.observe_gradients(accumulation, lambda _, sums: meter.close(sums))
        return [close, lambda: vars(accumulation).pop("step", None)]


def _summing(optimizer: Any) -> Any:
    """The optimizer that sums the gradients over the replicas."""
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer) or (
        isinstance(optimizer, OptimizerWrapper) and not optimizer.sums_gradients
    ):
        optimizer = optimizer.inner_optimizer
    return optimizer


def _square(gradients: list) -> tf.Tensor:
    dense = (tf.cast(tf.convert_to_tensor(g), tf.float32) for g in gradients if g is not None)
    return 2.0 * tf.add_n([tf.nn.l2_loss(g) for g in dense])


def _nothing(*_: Any) -> None:
    return None
