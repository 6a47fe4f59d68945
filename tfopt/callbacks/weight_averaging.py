"""Averages of the weights over training: exponential, stochastic, or the optimizer's own."""

import contextlib
import hashlib
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt import _keras_internals
from tfopt._batch_norm import Reestimation
from tfopt._checks import check_choice, check_integer, check_number, message
from tfopt._optimizers_in_use import optimizers_in_use
from tfopt.callbacks._fit_end import callbacks_of_fit
from tfopt.callbacks._rate import Progress, updates_made
from tfopt.callbacks._running_mean import RunningMean
from tfopt.callbacks._state import StatefulCallback
from tfopt.optimizers._assigned import unobserved

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

    A second `fit` starts a new average. With "optimizer", whose average goes on, it trains on from the
    training weights, so that two `fit` of 3 epochs equal one of 6; a file that was saved with the average in
    the model starts from the average (save with `keep=False`, or use `Resume`). Weights that somebody sets
    after training, as `EarlyStopping` does with the best ones, are what `averaged` shows from then on.

    A model with several optimizers, such as a GAN, is averaged as a whole. The updates of a batch are those
    of the optimizer that made the fewest in it. "optimizer" then takes the average of each that has one.

    Memory: the weights twice.

    Args:
        mode: "ema", "swa" or "optimizer".
        decay: Of "ema", per update, in [0, 1): 0.999 averages about the last 1000 updates.
        start_epoch: First epoch that counts, >= 0; for "swa" about three quarters of the run.
        every: Updates between observations, >= 1, or "epoch"; None is 1 for "ema", "epoch" for "swa".
        batch_norm_data: Batches over which batch-norm statistics are computed anew for the average,
            each time it is put into the model; needed for "swa" with batch normalization.
        keep: Whether the average stays in the model after training. `averaged` shows it in any case.

    Raises:
        ValueError: When training begins, with Keras's `BackupAndRestore`, which would save the average in
            place of the training weights; with "optimizer", if no optimizer averages; after an epoch, if the
            optimizers that were found have not trained the model.

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
        self.every = ("epoch" if mode == "swa" else 1) if every is None else every
        self._spacing = None if self.every == "epoch" else check_integer("every", self.every, minimum=1)
        self.batch_norm_data = batch_norm_data
        self.keep = bool(keep)
        self._training = False
        self._swapped = False
        self._optimizers: list[Any] = []
        self._ended: list[int] = []  # their updates when the last `fit` ended
        self._reset()

    def _reset(self) -> None:
        self._mean = RunningMean(self.decay if self.mode == "ema" else None)
        self._averages: list[tf.Variable] = []
        self._raw: list[np.ndarray] | None = None  # the training weights while the average is in the model
        self._left: bytes | None = None  # digest of the weights that the last `fit` left in the model
        self._last: list[int] = []
        self._reestimation: Reestimation | None = None  # traced once for every epoch of a `fit`
        self._counting = self.start_epoch == 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Starts a new average."""
        if any(isinstance(each, keras.callbacks.BackupAndRestore) for each in callbacks_of_fit()):
            raise ValueError(
                "`WeightAveraging` must not be used with `BackupAndRestore`, which would save the average in "
                "place of the training weights. Use `tfopt.callbacks.Resume`, which saves both."
            )
        before = _CALLBACKS.get(self.model)
        if before is not None:
            before.go_on()
        self._reset()
        self._training = True
        self._optimizers = list(optimizers_in_use(self.model).values())
        self._progress = Progress(self, self.model)
        self._last = [updates_made(optimizer) for optimizer in self._optimizers]
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
        self._progress.check()
        self._close_epoch()

    def on_train_end(self, logs: Any = None) -> None:
        """Leaves the average or the training weights in the model."""
        self._training = False
        if not self.keep:
            self.swap_out()
        elif self.mode != "optimizer":  # whose average, of Schedule-Free, is made from the training weights
            self._leave()
        self._left = _digest(self.model)
        self._ended = [updates_made(optimizer) for optimizer in self._optimizers]

    def go_on(self) -> None:
        """Puts back the training weights that the end of training kept, unless others were set since then."""
        if self._left is not None and self._left == _digest(self.model):
            self.swap_out()

    def swap_in(self) -> bool:
        """Puts the average into the model; false if it is there already or nothing was averaged yet."""
        variables = _float_weights(self.model)
        if self._raw is not None or self._mean.mass == 0.0 or self._were_set():
            return False
        self._raw = [keras.ops.convert_to_numpy(v) for v in variables]
        if self.mode == "optimizer":
            variables, values = self._own_average()
        else:
            values = [average.value() for average in self._averages]
        with unobserved():
            for variable, value in zip(variables, values):
                variable.assign(keras.ops.cast(value, variable.dtype))
            for variable in self.model.trainable_variables:
                if variable.constraint is not None:
                    variable.assign(variable.constraint(variable))
        if self.batch_norm_data is not None:
            self._reestimation = self._reestimation or Reestimation(self.model)
            self._reestimation(self.batch_norm_data)
        return True

    def swap_out(self) -> None:
        """Puts the training weights back, bit for bit."""
        if self._raw is not None:
            with unobserved():
                for variable, value in zip(_float_weights(self.model), self._raw):
                    variable.assign(value)
            self._raw = None

    def _leave(self) -> None:
        """Sets the average as the user would: further training, and the optimizer's state, start from it."""
        if self._raw is None:
            return
        variables = _float_weights(self.model)
        average = [keras.ops.convert_to_numpy(variable) for variable in variables]
        self.swap_out()
        for variable, value in zip(variables, average):
            variable.assign(value)

    def get_state(self) -> dict[str, Any]:
        """The average, and the training weights if they are not in the model."""
        averages = [average.numpy() for average in self._averages]
        return {"mass": self._mean.mass, "last": self._last, "averages": averages, "raw": self._raw}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores both."""
        self._mean.mass, self._last, self._raw = state["mass"], list(state["last"]), state["raw"]
        self._averages = [tf.Variable(average, trainable=False) for average in state["averages"]]
        self._update = _updater(_float_weights(self.model), self._averages)

    def _updates(self) -> int:
        """Updates since the last observation, of the optimizer that made the fewest but some."""
        counts = [updates_made(optimizer) - last for optimizer, last in zip(self._optimizers, self._last)]
        return min((count for count in counts if count > 0), default=0)

    def _were_set(self) -> bool:
        """Whether the weights were set, not trained, since the last `fit` ended."""
        trained = [updates_made(optimizer) for optimizer in self._optimizers] != self._ended
        return self._left is not None and not trained and self._left != _digest(self.model)

    def _close_epoch(self) -> None:
        if self._raw is None and self._spacing is None:
            self._observe()
        self.swap_in()

    def _observe(self) -> None:
        updates = self._updates()
        if not self._counting or updates == 0:
            return
        self._last = [updates_made(optimizer) for optimizer in self._optimizers]
        share = self._mean.share(updates)
        if self.mode == "optimizer":
            self._own_average()  # fails at the first batch if there is none
            return
        variables = _float_weights(self.model)
        if not self._averages:
            self._averages = [tf.Variable(_wide(v), trainable=False) for v in variables]
            self._update = _updater(variables, self._averages)
        self._update(tf.constant(share, tf.float32))

    def _own_average(self) -> tuple[list[Any], list[Any]]:
        """The variables of all optimizers that average, and their averages."""
        variables: list[Any] = []
        averages: list[Any] = []
        for optimizer in self._optimizers:
            own = _keras_internals.trained_by(optimizer)
            values = _keras_internals.average_values(optimizer, own)
            if values is not None:
                variables, averages = variables + own, averages + values
        if not variables:
            kinds = [type(optimizer).__name__ for optimizer in self._optimizers]
            expected = 'mode="optimizer" needs an optimizer that averages: `use_ema=True` or Schedule-Free.'
            raise ValueError(f"{expected} Received: {', '.join(kinds)}.")
        return variables, averages


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


def _float_weights(model: keras.Model) -> list[Any]:
    """Weights and moving statistics; layers that are frozen today may be trained tomorrow.

    Also `tf.Variable`s that are trained, such as a temperature, which Keras does not list.
    """
    trained = [v for each in optimizers_in_use(model).values() for v in _keras_internals.trained_by(each)]
    every = {id(variable): variable for variable in [*model.weights, *trained]}
    return [v for v in every.values() if tf.as_dtype(keras.backend.standardize_dtype(v.dtype)).is_floating]


def _digest(model: keras.Model) -> bytes:
    """Of the weights that are averaged."""
    digest = hashlib.blake2b(digest_size=16)
    for variable in _float_weights(model):
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).tobytes())
    return digest.digest()


def _wide(variable: Any) -> tf.Tensor:
    """In float32 at least: an average moves by steps too small for float16."""
    value = tf.convert_to_tensor(variable)
    return value if value.dtype == tf.float64 else tf.cast(value, tf.float32)


def _updater(variables: list[Any], averages: list[tf.Variable]) -> Any:
    @tf.function(input_signature=[tf.TensorSpec((), tf.float32)])
    def update(share: tf.Tensor) -> None:
        for variable, average in zip(variables, averages):
            difference = tf.cast(tf.convert_to_tensor(variable), average.dtype) - average
            average.assign_add(tf.cast(share, average.dtype) * difference)

    return update
