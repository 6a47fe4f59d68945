"""What outputs are worth against labels: which task they serve, and the measures of that task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from tfopt._checks import check_choice, message
from tfopt.compress._data import pairs
from tfopt.compress._matching import Port
from tfopt.compress._structure import leaves

TASKS = ("classification", "binary", "multi_label", "regression", "dense")
WITH_ROWS = ("classification", "dense")  # one output for each class


@final
@dataclass(frozen=True)
class Judged:
    """One output: answers that can be compared between models, and what they are worth.

    Attributes:
        name: Of the output.
        task: One of `TASKS`.
        answers: The classes that were decided for, whose probabilities are not kept; of a regression the
            outputs.
        truths: The labels in the form of `answers`; of a regression as they were given.
        classes: Width of the output.
    """

    name: str
    task: str
    answers: np.ndarray
    truths: np.ndarray
    classes: int

    @property
    def right(self) -> np.ndarray | None:
        """Which answers are right, one entry each; None for regression."""
        return None if self.task == "regression" else self.answers == self.truths

    @property
    def scores(self) -> dict[str, float]:
        """The measures of the task."""
        right = self.right
        if right is not None:
            return {"accuracy": float(np.mean(right))}
        error = self.answers.reshape(self.truths.shape) - self.truths
        return {"mae": float(np.mean(np.abs(error))), "rmse": float(np.sqrt(np.mean(np.square(error))))}


@final
class _Gathered:
    """What a model answers at one output, batch after batch.

    Where the task is named and has classes, only the classes are kept: a thousand probabilities for each
    example would fill the memory.
    """

    def __init__(self, port: Port, task: str | None) -> None:
        self._port, self._task = port, task
        self._outputs: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._parts: list[Judged] = []

    def add(self, outputs: np.ndarray, labels: np.ndarray) -> None:
        """Takes one batch."""
        if self._task in WITH_ROWS:
            self._parts.append(self._judged(outputs, labels))
        else:
            self._outputs.append(outputs)
            self._labels.append(labels)

    def result(self) -> Judged:
        """All batches together."""
        if not self._parts:
            return self._judged(np.concatenate(self._outputs), np.concatenate(self._labels))
        answers, truths = (
            np.concatenate([getattr(part, name) for part in self._parts]) for name in ("answers", "truths")
        )
        return replace(self._parts[0], answers=answers, truths=truths)

    def _judged(self, outputs: np.ndarray, labels: np.ndarray) -> Judged:
        task = _task(self._port, outputs, labels, self._task)
        width = outputs.shape[-1] if outputs.ndim > 1 else 1
        if task == "regression":
            return Judged(self._port.name, task, outputs, labels, width)
        decisions, truths = decided(outputs, task), truth(outputs, labels, task)
        return Judged(self._port.name, task, decisions.astype(np.int32), truths.astype(np.int32), width)


def judged(
    predict: Callable[[Any], list[np.ndarray]],
    data: Any,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    task: Any = None,
) -> list[Judged]:
    """Runs a model on labeled data and pairs its outputs with their labels.

    Args:
        predict: The outputs, as a list, for a batch of inputs.
        data: As in `TFLiteModel.evaluate`.
        inputs: The inputs of the model.
        outputs: Its outputs.
        task: One of `TASKS`, a dictionary by output, or None to infer it.

    Raises:
        ValueError: If labels are missing, or do not fit the outputs.
    """
    gathered = [_Gathered(port, task.get(port.name) if isinstance(task, dict) else task) for port in outputs]
    batches = 0
    for batch, given in pairs(data, inputs):
        for each, values, labels in zip(gathered, predict(batch), _by_output(given, outputs)):
            each.add(values, labels)
        batches += 1
    if not batches:
        raise ValueError("`data` must have at least one batch. Received an empty dataset.")
    return [each.result() for each in gathered]


def mean_scores(found: Sequence[Judged]) -> dict[str, float]:
    """The measures of all outputs, with the output's name in front if there are several, and `samples`."""
    several = len(found) > 1
    scores = {
        f"{each.name}_{name}" if several else name: value
        for each in found
        for name, value in each.scores.items()
    }
    return {**scores, "samples": len(found[0].truths)}


def decided(outputs: np.ndarray, task: str) -> np.ndarray:
    """The classes that the outputs stand for."""
    if task in WITH_ROWS:
        return outputs.argmax(axis=-1)
    # Probabilities are above a half, logits above zero.
    threshold = 0.5 if outputs.min(initial=0.0) >= 0.0 and outputs.max(initial=1.0) <= 1.0 else 0.0
    return (outputs > threshold).astype(np.int64)


def truth(outputs: np.ndarray, labels: np.ndarray, task: str) -> np.ndarray:
    """The labels in the form that `decided` has."""
    if task in WITH_ROWS:
        is_row = labels.shape == outputs.shape
        return labels.argmax(axis=-1) if is_row else labels.reshape(outputs.shape[:-1]).astype(np.int64)
    return labels.reshape(outputs.shape).astype(np.int64)


def agreement(first: Judged, other: Judged) -> float:
    """How alike two models answer: the share of equal decisions, or for regression 1 - error / variance."""
    if first.task != "regression":
        return float(np.mean(first.answers == other.answers))
    variance = max(float(np.var(first.answers)), 1e-20)
    return max(0.0, 1.0 - float(np.mean(np.square(first.answers - other.answers))) / variance)


def _task(port: Port, outputs: np.ndarray, labels: np.ndarray, task: str | None) -> str:
    if task is not None:
        check_choice("task", task, TASKS)
    found = task or inferred(outputs, labels)
    needs_rows = found in WITH_ROWS
    fits = labels.size in (outputs.size, outputs.size // outputs.shape[-1] if needs_rows else outputs.size)
    rank = {"classification": outputs.ndim == 2, "dense": outputs.ndim > 2}.get(found, True)
    if (
        not fits
        or not rank
        or (needs_rows and outputs.shape[-1] < 2)
        or _out_of_range(found, outputs, labels)
    ):
        raise ValueError(
            f"Labels and outputs must fit the task {found!r}: classification has one output per class, shape "
            "(batch, classes >= 2), and labels below that number; the others have labels of the outputs' "
            f"shape. Received: output {port.name!r} of shape {outputs.shape}, labels of shape {labels.shape} "
            f"and type {labels.dtype}. Name the task: task=one of {TASKS}."
        )
    return found


def _out_of_range(task: str, outputs: np.ndarray, labels: np.ndarray) -> bool:
    if task not in WITH_ROWS or labels.size == outputs.size:
        return False
    return bool(labels.min(initial=0) < 0 or labels.max(initial=0) >= outputs.shape[-1])


def inferred(outputs: np.ndarray, labels: np.ndarray) -> str:
    """The task that outputs and labels show: whole numbers are classes, fractions are quantities."""
    whole = labels.dtype.kind in "iub" or bool(np.all(labels == np.round(labels)))
    classes = outputs.shape[-1] if outputs.ndim > 1 else 1
    per_row = classes >= 2 and labels.size * classes == outputs.size
    if per_row and whole:
        return "classification" if outputs.ndim == 2 else "dense"
    if classes >= 2 and labels.shape == outputs.shape and labels.dtype.kind != "U":
        if labels.min() >= 0 and np.allclose(labels.sum(axis=-1), 1.0, atol=1e-3):
            return "classification" if outputs.ndim == 2 else "dense"
        if whole and labels.min() >= 0 and labels.max() <= 1:
            return "multi_label"
        return "regression"
    if classes == 1 and whole and labels.min(initial=0) >= 0 and labels.max(initial=0) <= 1:
        return "binary"
    return "regression"


def _by_output(labels: Any, outputs: Sequence[Port]) -> list[np.ndarray]:
    if labels is None:
        raise ValueError("`data` must have labels: a dataset of (inputs, labels) or a pair of arrays.")
    if isinstance(labels, dict):
        missing = [port.name for port in outputs if port.name not in labels]
        if missing and len(labels) == len(outputs) == 1:
            return [np.asarray(value) for value in labels.values()]
        if missing:
            raise ValueError(
                message("labels", f"a dictionary with {[p.name for p in outputs]}", list(labels))
            )
        return [np.asarray(labels[port.name]) for port in outputs]
    values = leaves(labels)
    if len(values) != len(outputs):
        names = [port.name for port in outputs]
        raise ValueError(
            message("labels", f"one array for each of the outputs {names}", f"{len(values)} arrays")
        )
    return [np.asarray(value) for value in values]
