"""Range test of the learning rate: which rates make the loss fall, and from which one on it grows."""

import logging
import math
import pathlib
from typing import Any

import keras
import numpy as np

from tfopt import _keras_internals
from tfopt._checks import check_instance, check_integer, check_number, message
from tfopt._plot import save_lines
from tfopt.callbacks import _snapshot
from tfopt.callbacks._rate import Progress, only_optimizer
from tfopt.callbacks._state import KerasCallback

_LOG = logging.getLogger(__name__)
_MEMORY = 0.9  # of the running mean that tells divergence from noise
_WIDTH = 0.04  # of the window for the curve, as a share of the test


class RangeTest:
    """Rates that grow geometrically, the losses they gave, and what follows from them."""

    def __init__(self, minimum: float, maximum: float, steps: int, stop_at: float) -> None:
        self.planned = np.geomspace(minimum, maximum, steps)
        self.stop_at = stop_at
        self.losses: list[float] = []
        self._mean, self._lowest = 0.0, math.inf

    def observe(self, loss: float) -> bool:
        """Notes the loss of the next rate; true if the test is over."""
        if not math.isfinite(loss):
            return True
        self.losses.append(loss)
        self._mean = _MEMORY * self._mean + (1 - _MEMORY) * loss
        mean = self._mean / (1 - _MEMORY ** len(self.losses))
        self._lowest = min(self._lowest, mean)
        diverged = mean > self._lowest + (self.stop_at - 1) * abs(self._lowest)
        return diverged or len(self.losses) == len(self.planned)

    @property
    def rates(self) -> np.ndarray:
        """The rates that gave `losses`."""
        return self.planned[: len(self.losses)]

    def curve(self) -> np.ndarray:
        """The losses, each averaged with its neighbors on both sides, so that nothing lags."""
        width = max(_WIDTH * len(self.planned), 1.0)
        distance = np.arange(len(self.losses))
        weights = np.exp(-0.5 * ((distance[:, None] - distance) / width) ** 2)
        return weights @ np.array(self.losses) / weights.sum(1)

    def suggestion(self) -> float | None:
        """The geometric mean of the rates at which the curve falls fastest and is lowest."""
        if len(self.losses) < 3:
            return None
        curve = self.curve()
        lowest = int(curve.argmin())
        slope = np.gradient(curve)[: lowest + 1]
        return None if slope.min() >= 0 else float(np.sqrt(self.rates[slope.argmin()] * self.rates[lowest]))


class LearningRateFinder(KerasCallback):
    """Tries learning rates from small to large in one short `fit`, then leaves everything as it was.

    Use it before the first training of a new model, data set or optimizer, and for the peak of `OneCycle`
    or `Warmup`. `suggestion` is the geometric mean of two rates: the one at which the loss falls fastest, and
    the one at which it is lowest. Above the second the loss grows. Look at the curve (`plot`).

    A `fit` with this callback is the test, so give it no other; `test` makes that call, and puts everything
    back if an exception ends it, too. Afterwards the
    weights, the moving statistics, the seeds of random layers, the optimizer and the random generators of
    Keras, Python and NumPy are what they were. Only a dataset that shuffles by itself has moved on.

    Args:
        minimum: First rate, > 0.
        maximum: Last rate, > `minimum`.
        steps: Rates to try, one for each execution of the training step, >= 10.
        stop_at: The test ends when the mean loss is this many times the lowest one, > 1.
        monitor: Name of the loss in the logs, for models with a training step of their own.

    Attributes:
        suggestion: The rate to use, or None if the loss does not fall.
        rates, losses: The rates that were tried, and the loss at each.

    Raises:
        TypeError: When training begins, if the optimizer has a schedule.
        ValueError: When training begins, if the model is trained by several optimizers.
        ValueError: During training, if the logs have no `monitor`.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> data = tf.data.Dataset.from_tensor_slices((np.eye(4), np.arange(4.0))).batch(4)
        >>> finder = tfopt.callbacks.LearningRateFinder(minimum=1e-4, maximum=100.0)
        >>> rate = finder.test(model, data)
        >>> 0.01 < rate < 10.0, rate == finder.suggestion
        (True, True)
        >>> path = finder.plot("rates.png")

    References:
        Smith, "A disciplined approach to neural network hyper-parameters", 2018, arXiv:1803.09820.
    """

    def __init__(
        self,
        minimum: float = 1e-6,
        maximum: float = 1.0,
        steps: int = 100,
        *,
        stop_at: float = 4.0,
        monitor: str = "loss",
    ) -> None:
        super().__init__()
        self.minimum = check_number("minimum", minimum, minimum=0.0, open_minimum=True)
        self.maximum = check_number("maximum", maximum, minimum=self.minimum, open_minimum=True)
        self.steps = check_integer("steps", steps, minimum=10)
        self.stop_at = check_number("stop_at", stop_at, minimum=1.0, open_minimum=True)
        self.monitor = check_instance("monitor", monitor, str)
        self._test = self._fresh()
        self._before: Any = None

    def test(self, model: keras.Model, data: Any, **fit_options: Any) -> float | None:
        """Runs the test on a compiled model.

        Args:
            model: A compiled model; its optimizer is built on the way.
            data: What `fit` takes as `x`: batches with labels, or arrays with `y=` in the options.
            **fit_options: Of `fit`, such as `batch_size` or `steps_per_epoch`.

        Returns:
            The suggestion.
        """
        options = {"epochs": self.steps, "verbose": 0, **fit_options}
        try:
            model.fit(data, callbacks=[self], **options)
        finally:
            self._put_back()  # as `fit` has done itself, unless an exception or Ctrl-C ended it
        return self.suggestion

    @property
    def suggestion(self) -> float | None:
        """See the class."""
        return self._test.suggestion()

    @property
    def rates(self) -> np.ndarray:
        """The rates that were tried."""
        return self._test.rates

    @property
    def losses(self) -> np.ndarray:
        """The loss of the batch at each of them."""
        return np.array(self._test.losses)

    def plot(self, path: str | pathlib.Path) -> pathlib.Path:
        """Draws the losses over the rates; the suffix chooses the format (.png, .svg, .pdf)."""
        test, suggestion = self._test, self.suggestion
        if not test.losses:
            raise ValueError("There is nothing to draw before the test. Call `test` or `fit` first.")
        lowest = float(test.curve().min())
        top = max(test.losses[0], lowest) + (self.stop_at - 1) * abs(lowest)
        lines = {
            "loss": np.minimum(test.losses, top).tolist(),
            "mean": np.minimum(test.curve(), top).tolist(),
        }
        mark = None if suggestion is None else (suggestion, f"{suggestion:.2g}")
        rates = test.rates.tolist()
        return save_lines(path, rates, lines, x_label="learning rate", y_label="loss", log_x=True, mark=mark)

    def on_train_begin(self, logs: Any = None) -> None:
        """Remembers everything."""
        fix = (
            "Test one part of the model with its optimizer alone, or try a few runs with `tfopt.tune.search`."
        )
        self._optimizer = only_optimizer(self.model, "LearningRateFinder", fix)
        if _keras_internals.learning_rate_schedule(self._optimizer) is not None:
            raise TypeError(
                "`LearningRateFinder` needs an optimizer with a numeric learning rate. Received: one with "
                "a schedule. Compile with a number for the test."
            )
        _keras_internals.build_for_training(self.model, None)
        self._variables = _snapshot.variables_of(self.model, metrics=False)
        values = _snapshot.read_variables(self._variables, self.model.distribute_strategy)
        self._before = values, _keras_internals.random_state()
        self._progress = Progress(self, self.model)
        self._test = self._fresh()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Sets the next rate; the loss in the logs shall be that of this batch alone."""
        self._optimizer.learning_rate = float(self._test.planned[len(self._test.losses)])
        self.model.reset_metrics()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Looks at the loss."""
        logs = logs or {}
        if self.monitor not in logs:
            expected = f"a name in the logs, which have {sorted(logs)}"
            raise ValueError(message("monitor", expected, self.monitor))
        if len(self._test.losses) == 1:
            self._progress.check()
        if self._test.observe(float(logs[self.monitor])):
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        """Puts everything back."""
        self._put_back()
        if self.suggestion is None:
            _LOG.warning("LearningRateFinder: the loss fell at no rate from %g on.", self.minimum)

    def _put_back(self) -> None:
        if self._before is None:
            return
        values, state = self._before
        _snapshot.write_variables(self._variables, values, self.model.distribute_strategy)
        _keras_internals.set_random_state(state)
        self._before, self._variables = None, []
        self.model.reset_metrics()

    def _fresh(self) -> RangeTest:
        return RangeTest(self.minimum, self.maximum, self.steps, self.stop_at)
