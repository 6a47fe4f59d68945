"""Measures of outputs that come batch after batch."""

import abc
import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

import numpy as np

from tfopt.tasks.probabilities import BINS, LEAST_PROBABILITY, bins_of, calibration_error_of, per_class

if TYPE_CHECKING:
    from tfopt.tasks.task import Task


class Tally(abc.ABC):
    """Takes labels and outputs by the batch; gives what `Task.measures` gives for all of them together.

    Attributes:
        count: Examples so far.
        is_finite: Whether all outputs were.
    """

    def __init__(self) -> None:
        self.count, self.is_finite = 0, True

    def add(self, labels: np.ndarray, outputs: np.ndarray) -> None:
        """Takes one batch, as `Task.measures` does."""
        self.count += len(outputs)
        self.is_finite &= bool(np.isfinite(outputs).all())
        self._add(np.asarray(labels), outputs)

    @abc.abstractmethod
    def _add(self, labels: np.ndarray, outputs: np.ndarray) -> None:
        """Counts one batch."""

    def to_bytes(self) -> bytes:
        """What was counted, for `add_bytes` in another process."""
        buffer = io.BytesIO()
        parts: dict[str, Any] = {"count": self.count, "is_finite": self.is_finite, **self._parts()}
        np.savez(buffer, **parts)
        return buffer.getvalue()

    def add_bytes(self, content: bytes) -> None:
        """Adds what another tally of the same task has counted."""
        with np.load(io.BytesIO(content), allow_pickle=False) as parts:
            self.count += int(parts["count"])
            self.is_finite &= bool(parts["is_finite"])
            self._add_parts(parts)

    @abc.abstractmethod
    def _parts(self) -> dict[str, np.ndarray]:
        """What was counted, by name."""

    @abc.abstractmethod
    def _add_parts(self, parts: Mapping[str, np.ndarray]) -> None:
        """Adds the parts of another tally."""

    @abc.abstractmethod
    def measures(self) -> dict[str, Any]:
        """As `Task.measures`."""

    @abc.abstractmethod
    def log_loss(self) -> float | None:
        """As `Task.log_loss`."""

    @abc.abstractmethod
    def chance(self) -> tuple[str, float, float]:
        """As `Task.chance`."""


@final
class Rows(Tally):
    """Keeps labels and outputs, for measures that need all of them at once, such as average precision.

    Args:
        task: Which measures them.
    """

    def __init__(self, task: "Task") -> None:
        super().__init__()
        self._task = task
        self._labels: list[np.ndarray] = []
        self._outputs: list[np.ndarray] = []

    def _add(self, labels: np.ndarray, outputs: np.ndarray) -> None:
        self._labels.append(labels)
        self._outputs.append(outputs)

    def _parts(self) -> dict[str, np.ndarray]:
        if not self.count:  # a worker without a share
            return {}
        return {"labels": np.concatenate(self._labels), "outputs": np.concatenate(self._outputs)}

    def _add_parts(self, parts: Mapping[str, np.ndarray]) -> None:
        if "labels" in parts:
            self._labels.append(parts["labels"])
            self._outputs.append(parts["outputs"])

    def measures(self) -> dict[str, Any]:
        """Of all rows."""
        return self._task.measures(np.concatenate(self._labels), np.concatenate(self._outputs))

    def log_loss(self) -> float | None:
        """Of all rows."""
        return self._task.log_loss(np.concatenate(self._labels), np.concatenate(self._outputs))

    def chance(self) -> tuple[str, float, float]:
        """Of all rows."""
        return self._task.chance(np.concatenate(self._labels))


@final
class ClassCounts(Tally):
    """Counts of classes: memory grows with the classes, not with the examples.

    Args:
        names: Of the classes.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self._names, self._top, self._loss = names, 0, 0.0
        self._confusion: np.ndarray = np.zeros((len(names), len(names)), np.int64)
        self._bins: np.ndarray = np.zeros((3, BINS))  # examples, confidence and right answers in each

    def _add(self, labels: np.ndarray, outputs: np.ndarray) -> None:
        true = labels.argmax(axis=1) if labels.ndim == 2 else labels.astype(np.int64)
        predicted = outputs.argmax(axis=1)
        np.add.at(self._confusion, (true, predicted), 1)
        self._bins += bins_of(outputs.max(axis=1), true == predicted)
        best = np.argsort(-outputs, axis=1, kind="stable")[:, :5]
        self._top += int((best == true[:, None]).any(axis=1).sum())
        likely = np.clip(outputs[np.arange(len(true)), true], LEAST_PROBABILITY, 1)
        self._loss -= float(np.log(likely, dtype=np.float64).sum())

    def _parts(self) -> dict[str, np.ndarray]:
        sums = {"top": np.array(self._top), "loss": np.array(self._loss)}
        return {"confusion": self._confusion, "bins": self._bins, **sums}

    def _add_parts(self, parts: Mapping[str, np.ndarray]) -> None:
        self._confusion += parts["confusion"]
        self._bins += parts["bins"]
        self._top += int(parts["top"])
        self._loss += float(parts["loss"])

    def measures(self) -> dict[str, Any]:
        """Accuracy, means over the classes, top 5 (of more than 5 classes), calibration, every class."""
        confusion, right = self._confusion, np.diag(self._confusion)
        classes = per_class(self._names, right, confusion.sum(axis=0), confusion.sum(axis=1))
        present = [row for row in classes if row["support"]]
        support = np.array([row["support"] for row in present])
        top = {"top_5_accuracy": self._top / self.count} if len(self._names) > 5 else {}
        return {
            "accuracy": float(right.sum() / self.count),
            "balanced_accuracy": float(np.mean([row["recall"] for row in present])),
            **top,
            **{f"macro_{key}": float(np.mean([row[key] for row in present])) for key in ("precision", "f1")},
            "weighted_f1": float(np.average([row["f1"] for row in present], weights=support)),
            "expected_calibration_error": calibration_error_of(self._bins),
            "classes": classes,
            "confusion": confusion.tolist(),
        }

    def log_loss(self) -> float:
        """Of the probability of the right class."""
        return self._loss / self.count if self.is_finite else math.nan

    def chance(self) -> tuple[str, float, float]:
        """The mean recall of a model that always names one class; accuracy would depend on their shares."""
        return "balanced_accuracy", 1 / int(np.count_nonzero(self._confusion.sum(axis=1))), 1.0
