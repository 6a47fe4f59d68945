"""How right outputs are, for whatever a model predicts: one number, larger is better."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

Metric = Callable[[Any, Any], float]


def score(labels: Any, outputs: list[np.ndarray], metric: Metric | None = None) -> float:
    """The mean over the outputs of a metric of (labels, outputs); see `default_metric`.

    Args:
        labels: In the structure of the model's outputs.
        outputs: All outputs, flattened.
        metric: A function of the labels and outputs of one output; None chooses by their shapes.

    Raises:
        ValueError: If the labels do not have an array for each output, or not the length of the outputs.
    """
    truths = [np.asarray(leaf) for leaf in keras.tree.flatten(labels)]
    if len(truths) != len(outputs) or any(len(t) != len(y) for t, y in zip(truths, outputs)):
        raise ValueError(
            f"Labels must have an array for each of the {len(outputs)} outputs, with a row for each sample. "
            f"Received: labels of {[t.shape for t in truths]}, outputs of {[y.shape for y in outputs]}."
        )
    values = [(metric or default_metric)(truth, output) for truth, output in zip(truths, outputs)]
    return float(np.mean(values))


def default_metric(labels: np.ndarray, outputs: np.ndarray) -> float:
    """Accuracy for classes, for several labels and for maps of classes; else 1 - squared error / variance
    (R^2).

    Integer labels without an axis for classes, and one-hot rows, mean classes. Labels of zeros and ones in
    the shape of the outputs are right where both are on the same side of 0.5 (of 0 for outputs beyond [0,
    1]).
    """
    if labels.shape == outputs.shape[:-1] + (1,) and outputs.shape[-1] > 1:
        labels = labels[..., 0]
    if labels.shape == outputs.shape[:-1] and outputs.shape[-1] > 1:
        return float(np.mean(outputs.argmax(-1) == labels))
    labels = np.asarray(labels, np.float64).reshape(outputs.shape)
    binary = bool(np.isin(labels, (0, 1)).all())
    if binary and outputs.shape[-1] > 1 and (labels.sum(-1) == 1).all():
        return float(np.mean(outputs.argmax(-1) == labels.argmax(-1)))
    if binary:
        middle = 0.5 if outputs.min() >= 0 and outputs.max() <= 1 else 0.0
        return float(np.mean((outputs > middle) == (labels > 0.5)))
    return float(1 - np.mean((labels - outputs) ** 2) / max(labels.var(), 1e-12))
