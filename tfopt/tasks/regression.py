"""One or several numbers for each image."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from tfopt.tasks.task import Task

if TYPE_CHECKING:
    import keras


@final
class Regression(Task):
    """Each image has one or several numbers: a linear head, Huber loss, mean absolute error.

    Losses are of numbers in units of their deviation, so that learning rates suit all units.

    Args:
        names: Names of the targets.
        mean: Of each target, over the training split; None: 0.
        deviation: Of each target, likewise, > 0; None: 1.
    """

    name = "regression"
    activation = None
    compared_as = "regression"
    decisive = "mae"

    def __init__(
        self,
        names: Sequence[str],
        mean: Sequence[float] | None = None,
        deviation: Sequence[float] | None = None,
    ) -> None:
        super().__init__(names)
        self.mean = np.zeros(self.outputs) if mean is None else np.asarray(mean, float)
        self.deviation = np.ones(self.outputs) if deviation is None else np.asarray(deviation, float)

    def encoded(self, labels: Any) -> Any:
        """They are float32 numbers already."""
        return labels

    def loss(self, smoothing: float = 0.0) -> "keras.losses.Loss":
        """Huber loss of the error in deviations of the target."""
        from tfopt.tasks.lessons import ScaledHuber

        return ScaledHuber(self.deviation.tolist())

    def metrics(self) -> list[Any]:
        """The mean absolute error, in the units of the targets."""
        import keras

        return [keras.metrics.MeanAbsoluteError(name=self.decisive)]

    def quality(self, logs: Mapping[str, float], prefix: str = "val_") -> tuple[float, float]:
        """The loss, which weighs all targets equally; of equal losses the smaller absolute error."""
        return -logs[prefix + "loss"], -logs[prefix + self.decisive]

    def progress_text(self, logs: Mapping[str, float], split: str = "validation") -> str:
        """The mean absolute error on the validation split."""
        return f"{split} MAE {logs['val_mae']:.4g}" if "val_mae" in logs else ""

    def lessons(self) -> "list[keras.distillation.DistillationLoss] | None":
        """The numbers of the teacher, by the loss of the task."""
        from tfopt.tasks.lessons import SameOutputs

        return [SameOutputs(self.loss())]

    def fit_of_head(
        self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | float = 1.0
    ) -> tuple[float, np.ndarray]:
        """Half the squared error in deviations of the target."""
        error = logits - (labels - self.mean) / self.deviation
        return float(np.sum(weights * error**2) / 2 / len(labels)), weights * error / len(labels)

    def scores_of_head(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """The Huber loss and the mean absolute error."""
        size = np.abs(logits - (labels - self.mean) / self.deviation)
        loss = np.where(size <= 1, size**2 / 2, size - 0.5)
        return {"loss": float(loss.mean()), self.decisive: float((size * self.deviation).mean())}

    def measures(self, labels: np.ndarray, outputs: np.ndarray) -> dict[str, Any]:
        """MAE, RMSE, R2 (means over the targets), and the same for each target with that of its mean."""
        labels = np.asarray(labels, float).reshape(outputs.shape)
        error = outputs - labels
        rows = []
        for i, name in enumerate(self.names):
            spread = labels[:, i] - labels[:, i].mean()
            rows.append(
                {
                    "name": name,
                    "mae": float(np.abs(error[:, i]).mean()),
                    "rmse": float(np.sqrt(np.mean(error[:, i] ** 2))),
                    "r2": float(1 - np.sum(error[:, i] ** 2) / max(float(np.sum(spread**2)), 1e-12)),
                    "mae_of_mean": float(np.abs(spread).mean()),
                }
            )
        means = {key: float(np.mean([row[key] for row in rows])) for key in ("mae", "rmse", "r2")}
        return {**means, "mae_of_mean": float(np.mean([row["mae_of_mean"] for row in rows])), "targets": rows}

    def chance(self, labels: np.ndarray) -> tuple[str, float, float]:
        """R2 of a model that always answers the mean."""
        return "r2", 0.0, 1.0

    def answer(
        self, output: np.ndarray, top: int = 3, threshold: float | None = None
    ) -> list[tuple[str, float]]:
        """All targets in their order."""
        return [(name, float(value)) for name, value in zip(self.names, output)]

    def answer_text(self, answer: Sequence[tuple[str, float]]) -> str:
        """Targets and numbers."""
        return ", ".join(f"{name} {value:.4g}" for name, value in answer)

    def counts_text(self, counts: Mapping[str, int]) -> str:
        """Targets, and images by split."""
        images = ", ".join(f"{count} {split}" for split, count in counts.items())
        return f"numbers to predict: {', '.join(self.names)}; images: {images}"

    def stored(self) -> dict[str, Any]:
        """With mean and deviation of the targets."""
        return {**super().stored(), "mean": self.mean.tolist(), "deviation": self.deviation.tolist()}
