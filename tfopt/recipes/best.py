"""Keeps the best weights of a stage, and never worse ones than it began with."""

import math
from typing import Any

import keras
import numpy as np

from tfopt.callbacks import StatefulCallback


class Best:
    """The best (accuracy, loss) seen so far and the weights that reached it.

    A higher accuracy wins; of equal accuracies, as are common on small validation splits, the lower loss.
    NaN is worse than every number.
    """

    def __init__(self) -> None:
        self.score = (-math.inf, -math.inf)
        self.weights: list[Any] | None = None

    def observe(self, model: keras.Model, accuracy: float, loss: float) -> bool:
        """Takes the model's weights if they are better; says whether they were."""
        score = (_comparable(accuracy), _comparable(-loss))
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

    Put it behind `WeightAveraging`, so that it sees the averages. With `baseline`, training cannot end
    worse than it began.

    Args:
        baseline: (accuracy, loss) on the validation data of the weights at the start, or None.
    """

    def __init__(self, baseline: tuple[float, float] | None = None) -> None:
        super().__init__()
        self._baseline = baseline
        self._best = Best()

    def on_train_begin(self, logs: Any = None) -> None:
        """Takes the weights at the start, if their score is known."""
        self._best = Best()
        if self._baseline is not None:
            self._best.observe(self.model, *self._baseline)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Looks at the epoch's validation."""
        self._best.observe(self.model, logs["val_accuracy"], logs["val_loss"])

    def on_train_end(self, logs: Any = None) -> None:
        """Puts the best weights into the model."""
        self.restore()

    def get_state(self) -> dict[str, Any]:
        """The best so far."""
        return {"score": list(self._best.score), "weights": self._best.weights}

    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_state`."""
        self._best.score, self._best.weights = tuple(state["score"]), state["weights"]

    def restore(self) -> None:
        """Puts the best weights into the model, also after an interruption."""
        if self._best.weights is not None:
            self.model.set_weights(self._best.weights)
