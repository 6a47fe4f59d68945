"""Keeps the best weights of a stage, and never worse ones than it began with."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from tfopt.callbacks import StatefulCallback


class Best:
    """The best score seen so far and the weights that reached it.

    Scores are tuples, of which the larger one is better. NaN is worse than every number.
    """

    def __init__(self) -> None:
        self.score: tuple[float, ...] = ()  # smaller than every other tuple
        self.weights: list[Any] | None = None

    def observe(self, model: keras.Model, score: tuple[float, ...]) -> bool:
        """Takes the model's weights if they are better; says whether they were."""
        score = tuple(map(_comparable, score))
        if self.weights is not None and not score > self.score:
            return False
        # Integer weights, such as the count of a `Normalization` layer, come as scalars, which no checkpoint
        # of `Resume` can hold.
        self.score, self.weights = score, [np.asarray(weight) for weight in model.get_weights()]
        return True


def _comparable(value: float) -> float:
    return -math.inf if math.isnan(value) else float(value)


class KeepBest(StatefulCallback):
    """Leaves the weights of the best validation epoch in the model.

    Put it behind `WeightAveraging`, so that it sees the averages. With `start`, training cannot end worse
    than it began.

    Args:
        quality: The score of an epoch's logs, such as `Task.quality`.
        start: What `evaluate` gives for the weights at the start on the validation data, or None.
        patience: Epochs without a better one after which training ends; None: never.
    """

    def __init__(
        self,
        quality: Callable[..., tuple[float, ...]],
        start: Mapping[str, float] | None = None,
        patience: int | None = None,
    ) -> None:
        super().__init__()
        self._quality, self._start, self._patience = quality, start, patience
        self._best, self._waited = Best(), 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Takes the weights at the start, if their score is known."""
        self._best, self._waited = Best(), 0
        if self._start is not None:
            self._best.observe(self.model, self._quality(self._start, prefix=""))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Looks at the epoch's validation."""
        if not self._has_waited():  # it has if a run that was killed at its last epoch goes on
            better = self._best.observe(self.model, self._quality(logs))
            self._waited = 0 if better else self._waited + 1
        if self._has_waited():
            self.model.stop_training = True

    def _has_waited(self) -> bool:
        return self._patience is not None and self._waited >= self._patience

    def on_train_end(self, logs: Any = None) -> None:
        """Puts the best weights into the model."""
        self.restore()

    def get_state(self) -> dict[str, Any]:
        """The best so far."""
        return {"score": list(self._best.score), "weights": self._best.weights, "waited": self._waited}

    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_state`."""
        self._best.score, self._best.weights = tuple(state["score"]), state["weights"]
        self._waited = state["waited"]

    def restore(self) -> None:
        """Puts the best weights into the model, also after an interruption."""
        if self._best.weights is not None:
            self.model.set_weights(self._best.weights)
