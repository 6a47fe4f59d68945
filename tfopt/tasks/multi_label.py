"""Any number of labels for each image."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from tfopt.tasks.probabilities import LEAST_PROBABILITY, average_precision, best_threshold, per_class
from tfopt.tasks.task import Task

if TYPE_CHECKING:
    import keras


@final
class MultiLabel(Task):
    """Each image has any number of labels: sigmoid, binary cross-entropy, mean average precision.

    Args:
        names: Names of the labels.
    """

    name = "multilabel"
    activation = "sigmoid"
    compared_as = "multi_label"
    decisive = "mean_average_precision"
    scores_are_means = False

    def encoded(self, labels: Any) -> Any:
        """They are zeros and ones already."""
        return labels

    def loss(self, smoothing: float = 0.0) -> "keras.losses.Loss":
        """Binary cross-entropy, the mean over the labels."""
        import keras

        return keras.losses.BinaryCrossentropy(label_smoothing=smoothing)

    def metrics(self) -> list[Any]:
        """Area under the precision-recall curve (the mean over the labels), and the share of right labels."""
        import keras

        labels = {"multi_label": True, "num_labels": self.outputs} if self.outputs > 1 else {}
        area = keras.metrics.AUC(curve="PR", name=self.decisive, **labels)
        return [area, keras.metrics.BinaryAccuracy(name="accuracy")]

    def quality(self, logs: Mapping[str, float], prefix: str = "val_") -> tuple[float, float]:
        """Mean average precision; of equal ones the lower loss."""
        return logs[prefix + self.decisive], -logs[prefix + "loss"]

    def progress_text(self, logs: Mapping[str, float], split: str = "validation") -> str:
        """The mean average precision on the validation split."""
        key = f"val_{self.decisive}"
        return f"{split} mAP {logs[key]:.1%}" if key in logs else ""

    def lessons(self) -> "list[keras.distillation.DistillationLoss] | None":
        """Binary cross-entropy with the probabilities of the teacher."""
        from tfopt.tasks.lessons import SameOutputs

        return [SameOutputs(self.loss())]

    def fit_of_head(
        self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | float = 1.0
    ) -> tuple[float, np.ndarray]:
        """Binary cross-entropy, the sum over the labels."""
        loss = weights * (np.logaddexp(0.0, logits) - labels * logits)
        return float(loss.sum() / len(labels)), weights * (_sigmoid(logits) - labels) / len(labels)

    def scores_of_head(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Binary cross-entropy (the mean over the labels) and mean average precision."""
        loss = float(np.mean(np.logaddexp(0.0, logits) - labels * logits))
        return {"loss": loss, self.decisive: _mean_precision(labels, logits)}

    def measures(self, labels: np.ndarray, outputs: np.ndarray) -> dict[str, Any]:
        """Mean average precision, exact matches, right labels, F1, and for each label a best threshold."""
        true, predicted = np.asarray(labels) > 0.5, outputs > 0.5
        rows = per_class(self.names, (true & predicted).sum(0), predicted.sum(0), true.sum(0))
        for column, row in enumerate(rows):
            row["average_precision"] = average_precision(true[:, column], outputs[:, column])
            row["best_threshold"] = best_threshold(true[:, column], outputs[:, column])
        return {
            self.decisive: _mean_precision(true, outputs),
            "exact_match": float((true == predicted).all(axis=1).mean()),
            "accuracy": float((true == predicted).mean()),
            "macro_f1": float(np.mean([row["f1"] for row in rows if row["support"]] or [0.0])),
            "log_loss": self.log_loss(labels, outputs),
            "classes": rows,
        }

    def log_loss(self, labels: np.ndarray, outputs: np.ndarray) -> float:
        """Of the probabilities of presence and absence, the mean over the labels."""
        true = np.asarray(labels) > 0.5
        clipped = np.clip(outputs.astype(float), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        return float(-np.where(true, np.log(clipped), np.log1p(-clipped)).mean())

    def chance(self, labels: np.ndarray) -> tuple[str, float, float]:
        """The mean average precision of a random order, which is the share of the images with a label."""
        shares = (np.asarray(labels) > 0.5).mean(axis=0)
        return self.decisive, float(shares[shares > 0].mean()) if shares.any() else 0.0, 1.0

    def answer(
        self, output: np.ndarray, top: int = 3, threshold: float | None = None
    ) -> list[tuple[str, float]]:
        """The labels with a probability of at least `threshold` (one half if None)."""
        least = 0.5 if threshold is None else threshold
        best = [i for i in np.argsort(-output, kind="stable")[:top] if output[i] >= least]
        return [(self.names[i], float(output[i])) for i in best]

    def answer_text(self, answer: Sequence[tuple[str, float]]) -> str:
        """Labels and probabilities."""
        return ", ".join(f"{name} {value:.1%}" for name, value in answer) or "none"

    def counts_text(self, counts: Mapping[str, int]) -> str:
        """Labels, and images by split."""
        images = ", ".join(f"{count} {split}" for split, count in counts.items())
        return f"{self.outputs} labels, several per image; images: {images}"


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -logits))


def _mean_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """The mean over the labels that occur."""
    true = np.asarray(labels) > 0.5
    columns = [average_precision(true[:, i], scores[:, i]) for i in range(true.shape[1])]
    found = [value for value in columns if not np.isnan(value)]
    return float(np.mean(found)) if found else 0.0
