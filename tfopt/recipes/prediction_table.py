"""Predictions as rows that the next program reads: CSV and JSON Lines."""

import csv
import json
import math
from collections.abc import Callable
from typing import Any, TextIO

from tfopt.recipes.predicting import Prediction
from tfopt.tasks import MultiLabel, Regression, Task

_SEPARATOR = "|"  # of several labels, as `tfopt.data.load` splits them


def row_writer(kind: str, file: TextIO, task: Task, top: int) -> Callable[[Prediction], None]:
    """A function that writes one prediction as one row.

    CSV has the columns `path`, what the task gives (`class` and `probability`, then `class_2` and so on up to
    `top`; `labels`; or one column for each target), and `error`. Its columns of labels have names that
    `tfopt.data.load` knows.

    Args:
        kind: "csv" or "jsonl".
        file: Where the rows go.
        task: Of the model.
        top: How many classes a row can name.
    """
    if kind == "jsonl":
        return lambda prediction: print(json.dumps(_entry(prediction, task)), file=file)
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["path", *_columns(task, top), "error"])
    return lambda prediction: table.writerow(_cells(prediction, task, top))


def _columns(task: Task, top: int) -> list[str]:
    if isinstance(task, Regression):
        return list(task.names)
    if isinstance(task, MultiLabel):
        return ["labels", "probabilities"]
    more = [f"{name}_{place}" for place in range(2, top + 1) for name in ("class", "probability")]
    return ["class", "probability", *more]


def _cells(prediction: Prediction, task: Task, top: int) -> list[str]:
    names = [name for name, _ in prediction.classes]
    values = [f"{value:.6g}" for _, value in prediction.classes]
    if isinstance(task, Regression):
        cells, width = values, task.outputs
    elif isinstance(task, MultiLabel):
        cells, width = [_SEPARATOR.join(names), _SEPARATOR.join(values)], 2
    else:
        cells, width = [cell for pair in zip(names, values) for cell in pair], 2 * top
    return [prediction.path, *cells, *[""] * (width - len(cells)), prediction.error or ""]


def _entry(prediction: Prediction, task: Task) -> dict[str, Any]:
    if prediction.error is not None:
        return {"path": prediction.path, "error": prediction.error}
    values = [(name, value if math.isfinite(value) else None) for name, value in prediction.classes]
    if isinstance(task, Regression):
        return {"path": prediction.path, "values": dict(values)}
    classes = [{"name": name, "probability": value} for name, value in values]
    return {"path": prediction.path, "classes": classes}
