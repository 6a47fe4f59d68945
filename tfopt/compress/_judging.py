"""What outputs are worth against labels: which task they serve, and the measures of that task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from tfopt._checks import check_choice, message
from tfopt.compress._data import pairs
from tfopt.compress._matching import Port
from tfopt.compress._structure import leaves

TASKS = ("classification", "binary", "multi_label", "regression", "dense")


@final
@dataclass(frozen=True)
class Judged:
    """One output: predictions that can be compared between models, and what they are worth."""

    name: str
    task: str
    outputs: np.ndarray
    labels: np.ndarray

    @property
    def right(self) -> np.ndarray | None:
        """Which predictions are right, one entry each; None for regression."""
        return None if self.task == "regression" else decided(self.outputs, self.task) == truth(self)

    @property
    def scores(self) -> dict[str, float]:
        """The measures of the task."""
        right = self.right
        if right is not None:
            return {"accuracy": float(np.mean(right))}
        error = self.outputs.reshape(self.labels.shape) - self.labels
        return {"mae": float(np.mean(np.abs(error))), "rmse": float(np.sqrt(np.mean(np.square(error))))}


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
    parts: list[list[np.ndarray]] = [[] for _ in outputs]
    labels: list[list[np.ndarray]] = [[] for _ in outputs]
    for batch, given in pairs(data, inputs):
        for i, output in enumerate(predict(batch)):
            parts[i].append(output)
        for i, truths in enumerate(_by_output(given, outputs)):
            labels[i].append(truths)
    if not parts[0]:
        raise ValueError("`data` must have at least one batch. Received an empty dataset.")
    found = []
    for port, part, label in zip(outputs, parts, labels):
        values, wanted = np.concatenate(part), np.concatenate(label)
        named = task.get(port.name) if isinstance(task, dict) else task
        found.append(Judged(port.name, _task(port, values, wanted, named), values, wanted))
    return found


def mean_scores(found: Sequence[Judged]) -> dict[str, float]:
    """The measures of all outputs, with the output's name in front if there are several, and `samples`."""
    several = len(found) > 1
    scores = {
        f"{each.name}_{name}" if several else name: value
        for each in found
        for name, value in each.scores.items()
    }
    return {**scores, "samples": len(found[0].labels)}


def decided(outputs: np.ndarray, task: str) -> np.ndarray:
    """The classes that the outputs stand for."""
    if task in ("classification", "dense"):
        return outputs.argmax(axis=-1)
    # Probabilities are above a half, logits above zero.
    threshold = 0.5 if outputs.min(initial=0.0) >= 0.0 and outputs.max(initial=1.0) <= 1.0 else 0.0
    return (outputs > threshold).astype(np.int64)


def truth(each: Judged) -> np.ndarray:
    """The labels in the form that `decided` has."""
    labels, outputs = each.labels, each.outputs
    if each.task in ("classification", "dense"):
        is_row = labels.shape == outputs.shape
        return labels.argmax(axis=-1) if is_row else labels.reshape(outputs.shape[:-1]).astype(np.int64)
    return labels.reshape(outputs.shape).astype(np.int64)


def agreement(first: Judged, other: Judged) -> float:
    """How alike two models answer: the share of equal decisions, or for regression 1 - error / variance."""
    if first.task != "regression":
        return float(np.mean(decided(first.outputs, first.task) == decided(other.outputs, other.task)))
    variance = max(float(np.var(first.outputs)), 1e-20)
    return max(0.0, 1.0 - float(np.mean(np.square(first.outputs - other.outputs))) / variance)


def _task(port: Port, outputs: np.ndarray, labels: np.ndarray, task: str | None) -> str:
    if task is not None:
        check_choice("task", task, TASKS)
    found = task or inferred(outputs, labels)
    needs_rows = found in ("classification", "dense")
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
    if task not in ("classification", "dense") or labels.size == outputs.size:
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
