"""compare: what each step of compression costs in accuracy and saves in bytes and time."""

import json
import math
import pathlib
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf
from rich.table import Table

from tfopt._checks import check_number, message
from tfopt._keras_internals import functional, nodes
from tfopt._table import Printable
from tfopt.compress._data import pairs
from tfopt.compress._judging import Judged, agreement, judged, mean_scores
from tfopt.compress._matching import Port, matched
from tfopt.compress._ports import Portable
from tfopt.compress.tflite_model import Latency, TFLiteModel

WARM_UP = 3


@final
@dataclass(frozen=True)
class Row:
    """One model: accuracy with its 95 % interval, agreement with the first, sizes, time of one inference.

    For several outputs, accuracy and agreement are those of the first output that has classes; `scores` holds
    the measures of all. Without classes the accuracy is NaN, and `agreement` is 1 - error / variance against
    the first.
    """

    name: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    agreement: float
    bytes: int
    bytes_zipped: int
    latency: Latency
    samples: int
    scores: dict[str, float] = field(default_factory=dict)


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
        titles = (
            "result" if math.isnan(self.rows[0].accuracy) else "accuracy",
            "agreement",
            "size",
            "zipped",
            "latency, ms (10-90 %)",
        )
        for title in titles:
            table.add_column(title, justify="right")
        for row in self.rows:
            table.add_row(*_cells(row))
        return table

    def to_json(self, path: str | pathlib.Path | None = None) -> str:
        """The rows as JSON text, written to a file too if a path is given."""
        rows = [{key: _number(value) for key, value in asdict(row).items()} for row in self.rows]
        text = json.dumps({"rows": rows}, indent=2)
        if path is not None:
            pathlib.Path(path).write_text(text)
        return text


def compare(
    models: dict[str, keras.Model | TFLiteModel | str | pathlib.Path],
    data: Any,
    *,
    seconds: float = 1.0,
    task: Any = None,
) -> Comparison:
    """Measures models and files on the same data and the same machine.

    Times are interleaved over the models, so that a busy moment hits all of them. The size of a Keras model
    is that of its weights as they are in memory; the size of a file is the file.

    Args:
        models: Keras models, `TFLiteModel`s or paths of .tflite files, by name. Agreement is measured
            against the first.
        data: A batched dataset of (inputs, labels) or a pair of arrays, lists or dictionaries of arrays for
            several inputs and outputs. Labels of classes are integers or one-hot.
        seconds: How long to time each model, > 0.
        task: What the labels are, as in `TFLiteModel.evaluate`; None infers it from labels and outputs.

    Raises:
        ValueError: If there are no models, the data has no labels, or labels do not fit the outputs.

    Example:
        >>> print(tfopt.compress.compare({"float": model, "int8": "flowers.tflite"}, test))
    """
    if not models:
        raise ValueError(message("models", "at least one model by name", models))
    check_number("seconds", seconds, minimum=0.0, open_minimum=True)
    subjects = {name: _Subject(model) for name, model in models.items()}
    sample, _ = next(iter(pairs(data, next(iter(subjects.values())).inputs)), (None, None))
    if sample is None:
        raise ValueError("`data` must have at least one batch. Received an empty dataset.")
    results = {name: subject.judged(data, task) for name, subject in subjects.items()}
    timed = {name: subject.runner(sample) for name, subject in subjects.items()}
    latencies = interleaved(timed, seconds)
    first = next(iter(results.values()))
    rows = [_row(name, subject, first, results[name], latencies[name]) for name, subject in subjects.items()]
    return Comparison(tuple(rows))


def _row(name: str, subject: "_Subject", first: list[Judged], found: list[Judged], latency: Latency) -> Row:
    main = next((i for i, each in enumerate(first) if each.right is not None), 0)
    right = found[main].right
    accuracy = low = high = math.nan
    if right is not None:
        accuracy = float(np.mean(right))
        low, high = wilson(int(np.sum(right)), right.size)
    scores = mean_scores(found)
    return Row(
        name,
        accuracy,
        low,
        high,
        agreement(first[main], found[main]),
        len(subject.content),
        len(zlib.compress(subject.content, 6)),
        latency,
        int(scores.pop("samples")),
        scores,
    )


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value  # JSON has no NaN


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
    """A Keras model or a file, behind the same names."""

    def __init__(self, model: Any) -> None:
        self.file: TFLiteModel | None = None
        if isinstance(model, keras.Model):
            self.content = b"".join(np.asarray(value).tobytes() for value in model.get_weights())
            self.inputs, self.outputs = _keras_ports(model)
            self._function = tf.function(
                lambda x: keras.tree.flatten(model(x, training=False)), reduce_retracing=True
            )
            self._model = model
        else:
            self.file = model if isinstance(model, TFLiteModel) else TFLiteModel(model)
            self.content = self.file.content
            self.inputs, self.outputs = self.file.inputs, self.file.outputs

    def judged(self, data: Any, task: Any) -> list[Judged]:
        """The outputs and their labels."""
        if not self.outputs:  # a subclassed model does not say how many it has
            sample, _ = next(iter(pairs(data)))
            count = len(self._predict(sample))
            self.outputs = [Port(f"output_{i}", (), "float32") for i in range(count)]
        return judged(self._predict, data, self.inputs, self.outputs, task)

    def runner(self, batch: Any) -> Callable[[], float]:
        """Runs the first sample of a batch and returns the seconds it took."""
        sample = keras.tree.map_structure(lambda array: array[:1], batch)
        if self.file is not None:
            return self.file.runner(matched(sample, self.inputs))
        value = self._tensors(sample)

        def run() -> float:
            start = time.perf_counter()
            for output in self._function(value):
                np.asarray(output)
            return time.perf_counter() - start

        return run

    def _predict(self, batch: Any) -> list[np.ndarray]:
        if self.file is not None:
            return self.file.predict_batch(batch)
        return [np.asarray(output) for output in self._function(self._tensors(batch))]

    def _tensors(self, batch: Any) -> Any:
        """The batch as the model takes it: bytes are pixels, and a known model's inputs go by name."""
        if self.inputs:
            arrays = matched(batch, self.inputs)
            if arrays is not None:
                return keras.tree.pack_sequence_as(
                    functional(self._model).input, list(map(tf.constant, arrays))
                )
        return keras.tree.map_structure(
            lambda x: tf.constant(x, None if x.dtype in (np.int32, np.int64) else tf.float32), batch
        )


def _keras_ports(model: keras.Model) -> tuple[list[Port], list[Port]]:
    if not nodes(model):
        return [], []
    portable = Portable(model)
    return portable.inputs, portable.outputs


def _cells(row: Row) -> tuple[str, ...]:
    time_of = row.latency
    result = f"{row.accuracy:.1%} ({row.accuracy_low:.1%} to {row.accuracy_high:.1%})"
    if math.isnan(row.accuracy):
        result = ", ".join(f"{name} {value:.4g}" for name, value in row.scores.items())
    return (
        row.name,
        result,
        f"{row.agreement:.1%}",
        f"{row.bytes / 1e3:,.1f} kB",
        f"{row.bytes_zipped / 1e3:,.1f} kB",
        f"{time_of.median_ms:.2f} ({time_of.p10_ms:.2f} to {time_of.p90_ms:.2f})",
    )
