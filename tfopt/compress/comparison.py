"""compare: what each step of compression costs in accuracy and saves in bytes and time."""

import json
import math
import pathlib
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, final

import keras
import numpy as np
from rich.table import Table

from tfopt._checks import check_number, message
from tfopt._table import Printable
from tfopt.compress._comparison_table import table_of
from tfopt.compress._data import pairs
from tfopt.compress._judging import Judged, agreement, mean_scores
from tfopt.compress._subject import Subject
from tfopt.compress.class_recall import Recalls, balanced, loss_text, recalls
from tfopt.compress.tflite_model import Latency, TFLiteModel

WARM_UP = 3


@final
@dataclass(frozen=True)
class Row:
    """One model: accuracy with its 95 % interval, agreement with the first, sizes, time of one inference.

    `engine` is what ran it: "Keras", or the interpreter of files with its threads. Times of different engines
    cannot be compared: a call of Keras costs several times what the file of the same network takes.

    `recalls` is the share of each class's samples that were recognized (None for a class without samples),
    and `balanced_accuracy` their mean; without classes there are none.

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
    engine: str = ""
    balanced_accuracy: float = math.nan
    recalls: Recalls = ()


@final
@dataclass(frozen=True)
class Comparison(Printable):
    """The rows of `compare`; prints as a table, with warnings below it.

    Attributes:
        rows: In the order of the models.
        class_names: As they were given.
        support: Number of samples of each class; none without classes.
    """

    rows: tuple[Row, ...]
    class_names: tuple[str, ...] = ()
    support: tuple[int, ...] = ()

    def __getitem__(self, name: str) -> Row:
        """The row of one model."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    def __rich__(self) -> Table:
        """The table for a rich console."""
        return table_of(self.rows, self.warnings)

    @property
    def reference(self) -> Row:
        """What the last row is compared with in size and time: the first one that the same engine ran."""
        return next(row for row in self.rows if row.engine == self.rows[-1].engine)

    @property
    def speedup(self) -> float:
        """How many times as fast as `reference` the last row is: both are run by the same engine."""
        return self.reference.latency.median_ms / self.rows[-1].latency.median_ms

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence if classes lose more than 5 points of recall from the first row to the last."""
        first, last = self.rows[0], self.rows[-1]
        before, after = (first.name, first.recalls), (last.name, last.recalls)
        text = loss_text(before, after, self.support, self.class_names)
        return (text,) if text else ()

    @classmethod
    def from_json(cls, text: str) -> "Comparison":
        """The inverse of `to_json`."""
        found = json.loads(text)
        rows = []
        for row in found["rows"]:
            values: dict[str, Any] = {key: math.nan if value is None else value for key, value in row.items()}
            values |= {"latency": Latency(**row["latency"]), "recalls": tuple(row["recalls"])}
            rows.append(Row(**values))
        return cls(tuple(rows), tuple(found["class_names"]), tuple(found["support"]))

    def to_json(self, path: str | pathlib.Path | None = None) -> str:
        """The rows as JSON text, written to a file too if a path is given."""
        rows = [{key: _number(value) for key, value in asdict(row).items()} for row in self.rows]
        about = {"class_names": self.class_names, "support": self.support, "warnings": self.warnings}
        text = json.dumps({"rows": rows, **about}, indent=2)
        if path is not None:
            pathlib.Path(path).write_text(text, encoding="utf-8")
        return text


def compare(
    models: dict[str, keras.Model | TFLiteModel | str | pathlib.Path],
    data: Any,
    *,
    seconds: float = 1.0,
    task: Any = None,
    class_names: Sequence[str] = (),
) -> Comparison:
    """Measures models and files on the same data and the same machine.

    Times are interleaved over the models, so that a busy moment hits all of them. Those of Keras models stand
    in a column of their own: to say how much faster a file is, compare it with the float file of the same
    network. The size of a Keras model is that of its weights as they are in memory; the size of a file is the
    file.

    Args:
        models: Keras models, `TFLiteModel`s or paths of .tflite files, by name. Agreement is measured
            against the first.
        data: A batched dataset of (inputs, labels) or a pair of arrays, lists or dictionaries of arrays for
            several inputs and outputs. Labels of classes are integers or one-hot.
        seconds: How long to time each model, > 0.
        task: What the labels are, as in `TFLiteModel.evaluate`; None infers it from labels and outputs.
        class_names: Names of the classes, for warnings about single classes.

    Raises:
        ValueError: If there are no models, the data has no labels, or labels do not fit the outputs.

    Example:
        >>> print(tfopt.compress.compare({"float": model, "int8": "flowers.tflite"}, test))
    """
    if not models:
        raise ValueError(message("models", "at least one model by name", models))
    check_number("seconds", seconds, minimum=0.0, open_minimum=True)
    subjects = {name: Subject(model) for name, model in models.items()}
    sample, _ = next(iter(pairs(data, next(iter(subjects.values())).inputs)), (None, None))
    if sample is None:
        raise ValueError("`data` must have at least one batch. Received an empty dataset.")
    results = {name: subject.judged(data, task) for name, subject in subjects.items()}
    timed = {name: subject.runner(sample) for name, subject in subjects.items()}
    latencies = interleaved(timed, seconds)
    first = next(iter(results.values()))
    rows = [_row(name, subject, first, results[name], latencies[name]) for name, subject in subjects.items()]
    return Comparison(tuple(rows), tuple(class_names), _support(first))


def _main(found: Sequence[Judged]) -> int:
    """The output that accuracy is about: the first one that has classes."""
    return next((i for i, each in enumerate(found) if each.right is not None), 0)


def _support(found: Sequence[Judged]) -> tuple[int, ...]:
    each = found[_main(found)]
    if each.task != "classification":
        return ()
    return tuple(np.bincount(each.truths, minlength=each.classes).tolist())


def _recalls(each: Judged) -> Recalls:
    if each.task != "classification":
        return ()
    return recalls(each.truths, each.answers, each.classes)


def _row(name: str, subject: "Subject", first: list[Judged], found: list[Judged], latency: Latency) -> Row:
    main = _main(first)
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
        subject.engine,
        balanced(_recalls(found[main])),
        _recalls(found[main]),
    )


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value  # JSON has no NaN


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson, 1927): right also near 0 and 1, where the usual one is too short."""
    z = 1.959964
    share, scale = successes / trials, 1 + z * z / trials
    center = (share + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return max(center - half, 0.0), min(center + half, 1.0)


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
