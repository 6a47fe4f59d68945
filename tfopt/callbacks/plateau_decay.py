"""Lowers the learning rate when progress stops, and raises it again when it goes on."""

import logging
import math
import weakref
from typing import Any

from tfopt import _keras_internals
from tfopt._checks import check_choice, check_integer, check_number
from tfopt._directions import ask_for_direction, direction_of_metric, direction_of_name
from tfopt.callbacks._rate import Progress, learning_rates, rates_of
from tfopt.callbacks._state import StatefulCallback

_LOG = logging.getLogger(__name__)


class Plateau:
    """What factor the rate has after each observation; see `PlateauDecay` for the arguments."""

    def __init__(self, sign: float, callback: "PlateauDecay") -> None:
        self._sign, self._rule = sign, callback
        self.best, self.waited, self.cooling = math.inf, 0, 0

    def observe(self, value: float, factor: float) -> float:
        """The new factor; NaN is no progress."""
        rule = self._rule
        loss = self._sign * value
        if loss < self.best - rule.min_delta:
            self.best, self.waited = loss, 0
            self.cooling = max(self.cooling - 1, 0)
            return factor if rule.recover is None else min(factor * rule.recover, 1.0)
        if self.cooling:
            self.cooling -= 1
            return factor
        self.waited += 1
        if self.waited < rule.patience:
            return factor
        self.waited, self.cooling = 0, rule.cooldown
        if rule.restart and factor <= rule.minimum:
            return 1.0
        return max(factor * rule.factor, rule.minimum)


class PlateauDecay(StatefulCallback):
    """Multiplies the learning rate by a factor that falls on plateaus and recovers with progress.

    Use it if the length of the run is open. With a known number of epochs a schedule is better. It
    composes with a schedule in the optimizer, with `LearningRateDecay` and with `BatchSizeRamp`: their
    rate is multiplied.

        `patience` epochs without progress:    factor = max(factor * `factor`, `minimum`), wait `cooldown`
        the same at the minimum, if `restart`: factor = 1
        an epoch with progress, if `recover`:  factor = min(factor * `recover`, 1)

    Best value, counts and factor live on over a second `fit` of the same compiled model and over a
    restart by `Resume`. Epochs without the monitored value (`validation_freq`) do not count.

    A model that is trained by several optimizers (a GAN, a `MultiOptimizer`) has all of its rates multiplied.

    Logs: `learning_rate`, used in the epoch; of several optimizers `learning_rate_<name>`.

    Args:
        monitor: Name in the logs.
        factor: Multiplies the rate on a plateau, in (0, 1).
        patience: Epochs without progress that make a plateau, >= 1.
        mode: "min", "max" or "auto": the metric object of the model is asked, else the name: losses and
            errors are minimized, accuracies and other known gains maximized.
        min_delta: Smallest change that is progress, >= 0.
        cooldown: Epochs after a decay that do not count, >= 0.
        minimum: Lowest factor, in (0, 1].
        recover: Growth of a lowered factor in every epoch with progress, > 1; None never raises it.
        restart: Whether a plateau at the lowest factor sets the full rate again (a warm restart).

    Raises:
        ValueError: When training begins, if neither the metric nor its name says what is better; after an
            epoch, if the optimizers that were found have not trained the model.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(0.1), "mse")
        >>> plateau = tfopt.callbacks.PlateauDecay("loss", patience=2, min_delta=9.0)
        >>> history = model.fit(np.ones((8, 4)), np.ones(8), epochs=4, callbacks=[plateau], verbose=0)
        >>> [round(rate, 3) for rate in history.history["learning_rate"]]
        [0.1, 0.1, 0.1, 0.05]

    Differs from Keras's `ReduceLROnPlateau`, which refuses schedules, never raises the rate and forgets
    its state at every `fit`.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.5,
        patience: int = 5,
        *,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        minimum: float = 1e-3,
        recover: float | None = None,
        restart: bool = False,
    ) -> None:
        super().__init__()
        self.monitor = monitor
        self.factor = check_number(
            "factor", factor, minimum=0.0, maximum=1.0, open_minimum=True, open_maximum=True
        )
        self.patience = check_integer("patience", patience, minimum=1)
        check_choice("mode", mode, ("auto", "min", "max"))
        self._is_auto = mode == "auto"
        self.mode = (direction_of_name(monitor) or mode) if self._is_auto else mode
        self.min_delta = check_number("min_delta", min_delta, minimum=0.0)
        self.cooldown = check_integer("cooldown", cooldown, minimum=0)
        self.minimum = check_number("minimum", minimum, minimum=0.0, maximum=1.0, open_minimum=True)
        if recover is not None:
            check_number("recover", recover, minimum=1.0, open_minimum=True)
        self.recover = recover
        self.restart = bool(restart)
        self._optimizers: list[Any] = []  # weak references
        self._plateau = self._fresh()

    def on_train_begin(self, logs: Any = None) -> None:
        """Goes on if it is the optimizer of the last `fit`, else starts anew."""
        if self._is_auto:
            mode = direction_of_metric(self.monitor, _keras_internals.compiled_metrics(self.model))
            if mode is None:
                raise ValueError(ask_for_direction("PlateauDecay(mode", self.monitor, ")"))
            self.mode = mode
        self._rates = rates_of(self.model)
        for rate in self._rates.values():
            rate.prepare(self.model)
        optimizers = [rate.optimizer for rate in self._rates.values()]
        if [reference() for reference in self._optimizers] != optimizers:
            self._plateau = self._fresh()
            self._optimizers = [weakref.ref(optimizer) for optimizer in optimizers]
        self._progress = Progress(self, self.model)
        self._warned = False

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Looks at the monitored value and sets the factor."""
        logs = {} if logs is None else logs
        for name, value in learning_rates(self._rates).items():
            logs.setdefault(name, value)
        self._progress.check()
        if self.monitor in logs:
            factor = self._plateau.observe(logs[self.monitor], self._factor)
            for rate in self._rates.values():
                rate.set_factor(self._owner, factor)
        elif not self._warned:
            self._warned = True
            _LOG.warning("PlateauDecay waits for `%s`, the logs have: %s.", self.monitor, ", ".join(logs))

    def get_state(self) -> dict[str, Any]:
        """Factor, best value and counts."""
        plateau = self._plateau
        return {
            "factor": self._factor,
            "best": plateau.best,
            "waited": plateau.waited,
            "cooling": plateau.cooling,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores them."""
        for rate in self._rates.values():
            rate.restore_factor(self._owner, state["factor"])
        plateau = self._plateau
        plateau.best, plateau.waited, plateau.cooling = state["best"], state["waited"], state["cooling"]

    @property
    def _factor(self) -> float:
        """The same for all optimizers."""
        return next(iter(self._rates.values())).factor(self._owner)

    @property
    def _owner(self) -> str:
        return f"PlateauDecay {self.monitor}"

    def _fresh(self) -> Plateau:
        return Plateau(1.0 if self.mode == "min" else -1.0, self)
