"""compare: what each step of compression costs in accuracy and saves in bytes and time."""

import json
import math
import pathlib
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf
from rich.table import Table

from tfopt._checks import check_number, message
from tfopt._table import Printable
from tfopt.compress._data import classes, labelled
from tfopt.compress.tflite_model import Latency, TFLiteModel

WARM_UP = 3


@final
@dataclass(frozen=True)
class Row:
    """One model: accuracy with its 95 % interval, agreement with the first, sizes, time of one inference."""

    name: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    agreement: float
    bytes: int
    bytes_zipped: int
    latency: Latency
    samples: int


@final
@dataclass(frozen=True)
class Comparison(Printable):
    """The rows of `compare`; prints as a table."""

    rows: tuple[Row, ...]

    def __getitem__(self, name: str) -> Row:
        """The row of one model."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def __rich__(self) -> Table:
        """The table for a rich console."""
        table = Table(caption=f"{self.rows[0].samples} samples, 95 % intervals (Wilson), batch of 1")
        table.add_column("model")
        titles = ("accuracy", "agreement", "size", "zipped", "latency, ms (10-90 %)")
        for title in titles:
            table.add_column(title, justify="right")
        for row in self.rows:
            table.add_row(*_cells(row))
        return table

    def to_json(self, path: str | pathlib.Path | None = None) -> str:
        """The rows as JSON text, written to a file too if a path is given."""
        text = json.dumps({"rows": [asdict(row) for row in self.rows]}, indent=2)
        if path is not None:
            pathlib.Path(path).write_text(text)
        return text


def compare(
    models: dict[str, keras.Model | TFLiteModel | str | pathlib.Path], data: Any, *, seconds: float = 1.0
) -> Comparison:
    """Measures models and files on the same data and the same machine.

    Times are interleaved over the models, so that a busy moment hits all of them. The size of a Keras model
    is that of its weights as they are in memory; the size of a file is the file.

    Args:
        models: Keras models, `TFLiteModel`s or paths of .tflite files, by name. Agreement is measured
            against the first.
        data: A batched dataset of (inputs, labels) or a pair of arrays; labels are integers or one-hot.
        seconds: How long to time each model, > 0.

    Raises:
        ValueError: no models, data without labels, or a model without an output per class.

    Example:
        >>> print(tfopt.compress.compare({"float": model, "int8": "flowers.tflite"}, test))
    """
    if not models:
        raise ValueError(message("models", "at least one model by name", models))
    check_number("seconds", seconds, minimum=0.0, open_minimum=True)
    inputs, labels = labelled(data)
    subjects = {name: _Subject(model) for name, model in models.items()}
    predicted = {name: subject.predict(inputs) for name, subject in subjects.items()}
    timed = {name: subject.runner(inputs[0][0]) for name, subject in subjects.items()}
    latencies = interleaved(timed, seconds)
    first = next(iter(predicted.values()))
    rows = []
    for name, subject in subjects.items():
        correct = int(np.sum(predicted[name] == labels))
        low, high = wilson(correct, len(labels))
        agreement = float(np.mean(predicted[name] == first))
        sizes = len(subject.content), len(zlib.compress(subject.content, 6))
        accuracy = correct / len(labels)
        rows.append(Row(name, accuracy, low, high, agreement, *sizes, latencies[name], len(labels)))
    return Comparison(tuple(rows))


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927): right also near 0 and 1, where the usual one is too short."""
    z = 1.959964
    share, scale = successes / trials, 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def interleaved(timed: dict[str, Callable[[], float]], seconds: float) -> dict[str, Latency]:
    """Runs all functions in turn until each had about `seconds`, at least 10 times each."""
    times: dict[str, list[float]] = {name: [] for name in timed}
    for run in timed.values():
        for _ in range(WARM_UP):
            run()
    end = time.perf_counter() + seconds * len(timed)
    while time.perf_counter() < end or min(map(len, times.values())) < 10:
        for name, run in timed.items():
            times[name].append(run())
    return {name: Latency.of(values) for name, values in times.items()}


class _Subject:
    """A Keras model or a file, behind the same three names."""

    def __init__(self, model: Any) -> None:
        if isinstance(model, keras.Model):
            self._function = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
            self.content = b"".join(np.asarray(value).tobytes() for value in model.get_weights())
            self.file = None
        else:
            self.file = model if isinstance(model, TFLiteModel) else TFLiteModel(model)
            self.content = self.file.content

    def predict(self, batches: list[np.ndarray]) -> np.ndarray:
        """The most probable class of every sample."""
        return np.concatenate([classes(np.asarray(self._call(batch))) for batch in batches])

    def runner(self, sample: np.ndarray) -> Callable[[], float]:
        """Runs one sample and returns the seconds it took."""
        if self.file is not None:
            return self.file.runner(sample)
        value = tf.constant(sample[None], tf.float32)

        def run() -> float:
            start = time.perf_counter()
            np.asarray(self._function(value))
            return time.perf_counter() - start

        return run

    def _call(self, batch: np.ndarray) -> Any:
        return (
            self._function(tf.constant(batch, tf.float32)) if self.file is None else self.file.predict(batch)
        )


def _cells(row: Row) -> tuple[str, ...]:
    time_of = row.latency
    return (
        row.name,
        f"{row.accuracy:.1%} ({row.accuracy_low:.1%} to {row.accuracy_high:.1%})",
        f"{row.agreement:.1%}",
        f"{row.bytes / 1e3:,.1f} kB",
        f"{row.bytes_zipped / 1e3:,.1f} kB",
        f"{time_of.median_ms:.2f} ({time_of.p10_ms:.2f} to {time_of.p90_ms:.2f})",
    )
