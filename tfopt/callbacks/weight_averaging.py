"""Averages of the weights over training: exponential, stochastic, or the optimizer's own."""

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt import _keras_internals
from tfopt._batch_norm import reestimate
from tfopt._checks import check_choice, check_integer, check_number, message
from tfopt.callbacks._rate import updates_made
from tfopt.callbacks._running_mean import RunningMean
from tfopt.callbacks._state import StatefulCallback

_CALLBACKS: Any = weakref.WeakKeyDictionary()  # model -> its WeightAveraging


class WeightAveraging(StatefulCallback):
    """Evaluates, saves and finally keeps an average of the weights instead of the last ones.

    Use it in almost every run: it costs one pass over the weights per update and usually wins some tenths
    of a percent, most with a high or constant rate. End it before pruning starts: an average of sparse
    weights is not sparse.

        "ema":        average += (1 - decay) / (1 - decay^t) * (weights - average), at every update t
        "swa":        average += (weights - average) / t, at the end of every epoch t
        "optimizer":  what the optimizer offers: `use_ema=True`, or Schedule-Free

    The average stands in the model during validation, in the `on_epoch_end` of callbacks that come later in
    the list (put `ModelCheckpoint` and `EarlyStopping` there), and after training if `keep`. The weights
    that train come back bit for bit. Moving statistics are averaged like weights unless `batch_norm_data`
    is given. Constraints are applied to the average.

    Memory: the weights twice. A second `fit` starts a new average.

    Args:
        mode: "ema", "swa" or "optimizer".
        decay: Of "ema", per update, in [0, 1): 0.999 averages about the last 1000 updates.
        start_epoch: First epoch that counts, >= 0; for "swa" about three quarters of the run.
        every: Updates between observations, >= 1, or "epoch"; None is 1 for "ema", "epoch" for "swa".
        batch_norm_data: Batches over which batch-norm statistics are computed anew for the average,
            each time it is put into the model; needed for "swa" with batch normalization.
        keep: Whether the average stays in the model after training. `averaged` shows it in any case.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> averaging = tfopt.callbacks.WeightAveraging(decay=0.9, keep=False)
        >>> history = model.fit(np.ones((8, 4)), np.ones(8), epochs=3, callbacks=[averaging], verbose=0)
        >>> with tfopt.callbacks.averaged(model):
        ...     loss = model.evaluate(np.ones((8, 4)), np.ones(8), verbose=0)

    Differs from Keras's `use_ema` and `SwapEMAWeights`: no bias to the first weights, exact swaps, moving
    statistics, constraints, any optimizer; one observation per execution of several steps.

    References:
        Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization" (SWA), 2018,
        arXiv:1803.05407. Polyak and Juditsky, 1992 (averages of iterates).
    """

    def __init__(
        self,
        mode: str = "ema",
        decay: float = 0.999,
        *,
        start_epoch: int = 0,
        every: int | str | None = None,
        batch_norm_data: Iterable[Any] | None = None,
        keep: bool = True,
    ) -> None:
        super().__init__()
        self.mode = check_choice("mode", mode, ("ema", "swa", "optimizer"))
        self.decay = check_number("decay", decay, minimum=0.0, maximum=1.0, open_maximum=True)
        self.start_epoch = check_integer("start_epoch", start_epoch, minimum=0)
        default = "epoch" if mode == "swa" else 1
        self.every = default if every is None else every
        self._spacing = None if self.every == "epoch" else check_integer("every", self.every, minimum=1)
        self.batch_norm_data = batch_norm_data
        self.keep = bool(keep)
        self._training = False
        self._swapped = False
        self._reset()

    def _reset(self) -> None:
        self._mean = RunningMean(self.decay if self.mode == "ema" else None)
        self._averages: list[tf.Variable] = []
        self._raw: list[np.ndarray] | None = None  # the training weights while the average is in the model
        self._last = 0
        self._counting = self.start_epoch == 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts a new average."""
        self._reset()
        self._training = True
        self._last = updates_made(self.model.optimizer)
        _CALLBACKS[self.model] = self

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Puts the training weights back."""
        self.swap_out()
        self._counting = epoch >= self.start_epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Observes the weights."""
        if self._spacing is not None and self._updates() >= self._spacing:
            self._observe()

    def on_test_begin(self, logs: Any = None) -> None:
        """Evaluates with the average."""
        if self._training:
            self._close_epoch()
        else:
            self._swapped = self.swap_in()

    def on_test_end(self, logs: Any = None) -> None:
        """Within `fit` the average stays until the next epoch, for checkpoints."""
        if not self._training and self._swapped:
            self.swap_out()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Shows the average to the callbacks that follow."""
        self._close_epoch()

    def on_train_end(self, logs: Any = None) -> None:
        """Leaves the average or the training weights in the model."""
        self._training = False
        if not self.keep:
            self.swap_out()
        elif self.mode != "optimizer":  # whose average, of Schedule-Free, is made from the training weights
            self._raw = None  # the model may be trained further, and `averaged` shall show this average then

    def swap_in(self) -> bool:
        """Puts the average into the model; false if it is there already or nothing was averaged yet."""
        variables = _float_weights(self.model)
        if self._raw is not None or self._mean.mass == 0.0:
            return False
        self._raw = [keras.ops.convert_to_numpy(v) for v in variables]
        if self.mode == "optimizer":
            variables, values = self.model.trainable_variables, self._own_average()
        else:
            values = [average.value() for average in self._averages]
        for variable, value in zip(variables, values):
            variable.assign(keras.ops.cast(value, variable.dtype))
        for variable in self.model.trainable_variables:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable))
        if self.batch_norm_data is not None:
            reestimate(self.model, self.batch_norm_data)
        return True

    def swap_out(self) -> None:
        """Puts the training weights back, bit for bit."""
        if self._raw is not None:
            for variable, value in zip(_float_weights(self.model), self._raw):
                variable.assign(value)
            self._raw = None

    def get_state(self) -> dict[str, Any]:
        """The average, and the training weights if they are not in the model."""
        averages = [average.numpy() for average in self._averages]
        return {"mass": self._mean.mass, "last": self._last, "averages": averages, "raw": self._raw}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores both."""
        self._mean.mass, self._last, self._raw = state["mass"], state["last"], state["raw"]
        self._averages = [tf.Variable(average, trainable=False) for average in state["averages"]]
        self._update = _updater(_float_weights(self.model), self._averages)

    def _updates(self) -> int:
        return updates_made(self.model.optimizer) - self._last

    def _close_epoch(self) -> None:
        if self._raw is None and self._spacing is None:
            self._observe()
        self.swap_in()

    def _observe(self) -> None:
        updates = self._updates()
        if not self._counting or updates == 0:
            return
        self._last += updates
        share = self._mean.share(updates)
        if self.mode == "optimizer":
            self._own_average()  # fails at the first batch if there is none
            return
        variables = _float_weights(self.model)
        if not self._averages:
            self._averages = [tf.Variable(_wide(v), trainable=False) for v in variables]
            self._update = _updater(variables, self._averages)
        self._update(tf.constant(share, tf.float32))

    def _own_average(self) -> list[Any]:
        return _keras_internals.average_values(self.model.optimizer, self.model.trainable_variables)


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Shows the average of `WeightAveraging` in the model, and puts the last weights back afterwards.

    Args:
        model: A model trained with `WeightAveraging`.

    Example: see `WeightAveraging`.
    """
    callback = _CALLBACKS.get(model)
    if callback is None:
        raise ValueError(message("model", "trained with `WeightAveraging`", model.name))
    swapped = callback.swap_in()
    try:
        yield
    finally:
        if swapped:
            callback.swap_out()


def _float_weights(model: keras.Model) -> list[keras.Variable]:
    """Weights and moving statistics; layers that are frozen today may be trained tomorrow."""
    return [v for v in model.weights if "float" in str(v.dtype)]


def _wide(variable: keras.Variable) -> tf.Tensor:
    """In float32 at least: an average moves by steps too small for float16."""
    value = keras.ops.convert_to_tensor(variable)
    return value if variable.dtype == "float64" else tf.cast(value, tf.float32)


def _updater(variables: list[keras.Variable], averages: list[tf.Variable]) -> Any:
    @tf.function(input_signature=[tf.TensorSpec((), tf.float32)])
    def update(share: tf.Tensor) -> None:
        for variable, average in zip(variables, averages):
            difference = tf.cast(variable.value, average.dtype) - average
            average.assign_add(tf.cast(share, average.dtype) * difference)

    return update
