"""One class for each image."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from tfopt.tasks.tally import ClassCounts
from tfopt.tasks.task import Task

if TYPE_CHECKING:
    import keras


@final
class Classification(Task):
    """Each image has exactly one of several classes: softmax, cross-entropy, accuracy.

    Args:
        names: Names of the classes, at least 2.
    """

    name = "classification"
    activation = "softmax"
    compared_as = "classification"
    decisive = "accuracy"

    def encoded(self, labels: Any) -> Any:
        """One-hot rows; soft labels, which MixUp and CutMix make, are rows already."""
        import tensorflow as tf

        return labels if labels.dtype.is_floating else tf.one_hot(labels, self.outputs)

    def loss(self, smoothing: float = 0.0) -> "keras.losses.Loss":
        """Cross-entropy."""
        import keras

        return keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)

    def metrics(self) -> list[Any]:
        """Accuracy."""
        return ["accuracy"]

    def quality(self, logs: Mapping[str, float], prefix: str = "val_") -> tuple[float, float]:
        """Accuracy; of equal accuracies, as are common on small validation splits, the lower loss."""
        return logs[prefix + "accuracy"], -logs[prefix + "loss"]

    def progress_text(self, logs: Mapping[str, float], split: str = "validation") -> str:
        """The accuracy on the validation split."""
        return f"{split} {logs['val_accuracy']:.1%}" if "val_accuracy" in logs else ""

    def lessons(self) -> "list[keras.distillation.DistillationLoss] | None":
        """The divergence of the probabilities, which `Distillation` takes by itself."""
        return None

    def fit_of_head(
        self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | float = 1.0
    ) -> tuple[float, np.ndarray]:
        """Cross-entropy."""
        log_likely = log_softmax(logits)
        loss = float(-np.sum(weights * labels * log_likely) / len(labels))
        return loss, weights * (np.exp(log_likely) - labels) / len(labels)

    def scores_of_head(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Cross-entropy and accuracy."""
        log_likely = log_softmax(logits)
        right = log_likely.argmax(axis=1) == labels.argmax(axis=1)
        return {"loss": float(-np.mean(np.sum(labels * log_likely, axis=1))), "accuracy": float(right.mean())}

    def measures(self, labels: np.ndarray, outputs: np.ndarray) -> dict[str, Any]:
        """Accuracy, means over the classes, top 5 (of more than 5 classes), calibration, every class."""
        return self._counted(labels, outputs).measures()

    def tally(self) -> ClassCounts:
        """Counts, whose memory does not grow with the images."""
        return ClassCounts(self.names)

    def log_loss(self, labels: np.ndarray, outputs: np.ndarray) -> float:
        """Of the probability of the right class."""
        return self._counted(labels, outputs).log_loss()

    def chance(self, labels: np.ndarray) -> tuple[str, float, float]:
        """The mean recall of a model that always names one class; accuracy would depend on their shares."""
        labels = np.asarray(labels)
        numbers = labels.argmax(axis=1) if labels.ndim == 2 else labels
        return "balanced_accuracy", 1 / len(np.unique(numbers)), 1.0

    def _counted(self, labels: np.ndarray, outputs: np.ndarray) -> ClassCounts:
        counts = self.tally()
        counts.add(labels, outputs)
        return counts

    def answer(
        self, output: np.ndarray, top: int = 3, threshold: float | None = None
    ) -> list[tuple[str, float]]:
        """The most probable classes; with `threshold`, none is possible."""
        best = np.argsort(-output, kind="stable")[:top]
        return [(self.names[i], float(output[i])) for i in best if output[i] >= (threshold or 0.0)]

    def answer_text(self, answer: Sequence[tuple[str, float]]) -> str:
        """Classes and probabilities."""
        return ", ".join(f"{name} {value:.1%}" for name, value in answer) or "none"

    def counts_text(self, counts: Mapping[str, int]) -> str:
        """Classes, and images by split."""
        images = ", ".join(f"{count} {split}" for split, count in counts.items())
        return f"{self.outputs} classes; images: {images}"


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities, without overflow."""
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
