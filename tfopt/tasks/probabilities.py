"""Measures of probabilities against labels: precision and recall, ranks, calibration."""

from collections.abc import Sequence
from typing import Any

import numpy as np

LEAST_PROBABILITY = 1e-7
BINS = 15  # of confidence, for the calibration error


def per_class(
    names: Sequence[str], right: np.ndarray, predicted: np.ndarray, true: np.ndarray
) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of each class.

    Args:
        names: Of the classes.
        right: Number of images of each class that were recognized.
        predicted: Number of images for which each class was answered.
        true: Number of images of each class.
    """
    rows = []
    for name, hits, answered, support in zip(names, right, predicted, true):
        precision, recall = _share(hits, answered), _share(hits, support)
        f1 = _share(2 * hits, answered + support)
        rows.append(
            {"name": name, "precision": precision, "recall": recall, "f1": f1, "support": int(support)}
        )
    return rows


def bins_of(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[3, BINS]: examples, sum of confidence and number of right answers in bins of equal width.

    Confidence that is not finite, as of a model that has diverged, counts as 0.
    """
    confidence = np.where(np.isfinite(confidence), confidence, 0.0)
    bins = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    return np.stack([np.bincount(bins, values, BINS) for values in (None, confidence, right.astype(float))])


def calibration_error_of(bins: np.ndarray) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, over the sums of `bins_of`.

    References:
        Guo et al.: On Calibration of Modern Neural Networks. arXiv:1706.04599
    """
    counts, confidence, right = bins
    return float(np.abs(confidence - right).sum() / max(1, counts.sum()))


def average_precision(true: np.ndarray, scores: np.ndarray) -> float:
    """Area under the curve of precision over recall, as scikit-learn computes it; NaN without a true label.

    Equal scores count as one step: their order says nothing.
    """
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(true[order])
    last: np.ndarray = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    precision, recall = hits[last] / (last + 1), hits[last] / max(1, hits[-1])
    return float(np.sum(np.diff(recall, prepend=0.0) * precision)) if hits[-1] else float("nan")


def best_threshold(true: np.ndarray, scores: np.ndarray) -> float:
    """The threshold with the largest F1, in the middle between two scores."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last: np.ndarray = np.append(np.flatnonzero(np.diff(ranked)), len(scores) - 1)
    f1 = 2 * np.cumsum(true[order])[last] / (last + 1 + max(1, int(true.sum())))
    place = int(last[int(np.argmax(f1))])
    below = ranked[place + 1] if place + 1 < len(ranked) else 0.0
    return float((ranked[place] + below) / 2)


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
