"""What the report shows of several labels per image, and of numbers."""

from typing import Any

import keras
import numpy as np

from tfopt import report
from tfopt.compress import TFLiteModel
from tfopt.recipes.session import Session
from tfopt.tasks import MultiLabel

_NAMES = {
    "mae": "Mean absolute error",
    "rmse": "Root mean square error",
    "r2": "R\u00b2",
    "mean_average_precision": "Mean average precision",
    "exact_match": "Exact match",
}
_SHARES = ("precision", "accuracy", "match", "f1")  # in the names of measures that are written in percent


def task_scores(setting: Session, model: keras.Model, file: TFLiteModel) -> dict[str, Any]:
    """The fields `measures` and `labels` or `targets` of a `Report`, from the test images.

    Args:
        setting: The session.
        model: The float model, whose average precisions stand beside those of the file.
        file: The file that ships.
    """
    labels, outputs, reference = (
        np.concatenate(parts)
        for parts in zip(
            *(
                (labels.numpy(), file.predict(images.numpy()), model.predict_on_batch(images))
                for images, labels, *_ in setting.plain("test")
            )
        )
    )
    measures = setting.task.measures(labels, outputs)
    scored: dict[str, Any] = {"measures": measure_texts(measures)}
    if isinstance(setting.task, MultiLabel):
        return {**scored, "labels": _labels(measures, setting.task.measures(labels, reference))}
    truth = np.asarray(labels, float).reshape(outputs.shape)
    rows = measures["targets"]
    found = [
        report.TargetScore(row["name"], truth[:, i], outputs[:, i], row["mae_of_mean"])
        for i, row in enumerate(rows)
    ]
    return {**scored, "targets": found}


def _labels(measures: dict[str, Any], reference: dict[str, Any]) -> list[report.LabelScore]:
    return [
        report.LabelScore(
            row["name"],
            row["support"],
            row["average_precision"],
            other["average_precision"],
            *(row[key] for key in ("precision", "recall", "f1")),
            threshold=row["best_threshold"],
        )
        for row, other in zip(measures["classes"], reference["classes"])
    ]


def measure_texts(measures: dict[str, Any]) -> dict[str, str]:
    """The measures that are single numbers, by names for a reader."""
    single = {name: value for name, value in measures.items() if isinstance(value, float)}
    return {_NAMES.get(name, name.replace("_", " ")): _text(name, value) for name, value in single.items()}


def _text(name: str, value: float) -> str:
    if name in ("mae", "rmse", "mae_of_mean"):
        return f"{value:.3g}"
    return f"{100 * value:.1f} %" if any(word in name for word in _SHARES) else f"{value:.3f}"
