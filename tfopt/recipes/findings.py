"""Fills the report of a run: what was done, how good it is, and where it fails."""

import datetime
import logging
import math
import pathlib
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, TypeVar, final

import keras
import numpy as np

from tfopt import distribute, report
from tfopt.compress import Comparison, TFLiteModel
from tfopt.data.random_access import random_access_of
from tfopt.recipes import examination
from tfopt.recipes.layer_changes import layer_changes
from tfopt.recipes.missing_classes import lacking_text
from tfopt.recipes.run_folder import StageRecord
from tfopt.recipes.session import Session
from tfopt.recipes.sources import image_counts
from tfopt.recipes.stages import FineTuning, Slimming
from tfopt.recipes.stages.better import RESULTS, verdict
from tfopt.recipes.task_scores import measure_texts, task_scores
from tfopt.tasks import Classification, MultiLabel, Regression

SAMPLES = 24
SKIPPED = 20  # unreadable files that are named
FEWEST_EMBEDDED = 3  # images that a plot in two dimensions needs
PACKAGES = ("tfopt", "tensorflow", "keras", "tensorflow-model-optimization", "numpy")
_logger = logging.getLogger(__name__)

Content = TypeVar("Content")


@final
class Attempts:
    """Makes the content of sections, each by itself: one that fails costs its section, not the report.

    Attributes:
        failed: Title of a section -> why it could not be made.
    """

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}

    def __call__(self, title: str, make: Callable[[], Content], otherwise: Content) -> Content:
        """What `make` returns, or `otherwise` if it fails."""
        try:
            return make()
        except Exception as error:
            _logger.warning("the report has no section %r: %s", title, error, exc_info=True)
            self.failed[title] = report.failure_text(error)
            return otherwise


def write_report(
    path: pathlib.Path,
    setting: Session,
    records: Sequence[StageRecord],
    model: keras.Model,
    file: TFLiteModel,
    comparison: Comparison,
    started: float,
    *,
    title: str = "",
    options: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    before: keras.Model | None = None,
) -> pathlib.Path:
    """Writes the report and returns its path; without options, those of the setting.

    With the model `before` compression, the report says what is left of its layers.
    """
    attempt = Attempts()
    classes, one_class = setting.classes, setting.task.name == Classification.name
    found = None
    if one_class:
        found = attempt(
            "Confusion", lambda: examination.answers(file.predict, test_batches(setting), classes), None
        )
    scored: dict[str, Any] = {} if found is None else {"measures": measure_texts(found.measures)}
    if not one_class:
        title_of_scores = "Labels" if setting.task.name == MultiLabel.name else "Numbers"
        scored = attempt(title_of_scores, lambda: task_scores(setting, model, file), {})
    nothing: tuple[Any, Any] = (None, None)
    samples = attempt("Data", lambda: augmented_samples(setting), nothing)
    warnings = [lacking_text(setting.images), setting.leak_text, *comparison.warnings]
    warnings += [verdict(record.history, setting.task, setting.validation) for record in records]
    skipped = [f"Left out as unreadable: {path}" for path in setting.images.skipped[:SKIPPED]]
    if (more := len(setting.images.skipped) - SKIPPED) > 0:
        skipped.append(f"Left out as unreadable: {more:,} more files.")
    content = report.Report(
        title=title or f"Fine-tuning {model.name}",
        subtitle=f"{setting.counts_text.split('; ')[0]}, {datetime.datetime.now():%d %B %Y, %H:%M}",
        class_names=setting.images.class_names,
        class_counts={} if setting.task.name == Regression.name else setting.images.class_counts,
        **scored,
        balanced_counts=setting.balanced.class_counts["train"] if setting.config.balance else None,
        models=model_rows(comparison),
        stages=stages(records, setting),
        layers=[] if before is None else attempt("Layers", lambda: layer_changes(before, model), []),
        samples=samples[0],
        sample_labels=samples[1],
        confusion=found and found.confusion,
        evaluated_model=comparison.rows[-1].name,
        mistakes=mistakes(setting, model, found, attempt),
        embedding=attempt("Map of the images", lambda: embedding(setting, model), None),
        options=options or setting.config.to_dict(),
        environment=attempt("What was run", lambda: environment(setting), {}),
        notes=[*filter(None, warnings), *setting.stored.notes, *notes, *skipped],
        failed=attempt.failed,
        seconds=time.perf_counter() - started,
    )
    return report.write(path, content)


def test_batches(setting: Session) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The test images, float32, and their integer classes, by the batch."""
    for images, labels, *_ in setting.plain("test"):
        yield images.numpy(), labels.numpy().argmax(axis=1)


def stages(records: Sequence[StageRecord], setting: Session) -> list[report.Stage]:
    """The stages, and in which of them the model had learned from the validation images before."""
    learning = {kind.name for kind in (FineTuning, Slimming) if kind.learns_validation(setting)}
    learned = next((place for place, record in enumerate(records) if record.name in learning), len(records))
    curves = [
        {key: record.history[key] for key in record.history if key not in RESULTS} for record in records
    ]
    return [
        report.Stage(record.name, curve, record.seconds, number > learned)
        for number, (record, curve) in enumerate(zip(records, curves))
    ]


def model_rows(comparison: Comparison) -> list[report.ModelRow]:
    """The comparison as the report draws it."""
    return [
        report.ModelRow(
            row.name,
            accuracy=None if math.isnan(row.accuracy) else row.accuracy,
            interval=None if math.isnan(row.accuracy) else (row.accuracy_low, row.accuracy_high),
            bytes=row.bytes,
            zipped_bytes=row.bytes_zipped,
            latency_ms=row.latency.median_ms,
            latency_spread=(row.latency.p10_ms, row.latency.p90_ms),
            agreement=row.agreement,
            engine=row.engine,
            balanced_accuracy=None if math.isnan(row.balanced_accuracy) else row.balanced_accuracy,
            recalls=row.recalls or None,
            note="exported and verified" if row is comparison.rows[-1] else "",
            result=", ".join(f"{name} {value:.4g}" for name, value in row.scores.items()),
        )
        for row in comparison.rows
    ]


def augmented_samples(setting: Session) -> tuple[np.ndarray, list[int] | None]:
    """The first training images as the model sees them, with their classes if they have one each."""
    images, labels, *_ = next(iter(setting.training().take(1).as_numpy_iterator()))
    pixels = np.clip(np.rint(images[:SAMPLES]), 0, 255).astype("uint8")
    one_class = setting.task.name == Classification.name
    return pixels, labels[:SAMPLES].argmax(axis=1).tolist() if one_class else None


def mistakes(
    setting: Session, model: keras.Model, found: examination.Answers | None, attempt: Attempts
) -> list[report.Mistake]:
    """The surest mistakes, with the files that they are about, and with Grad-CAM if the model allows it."""
    if found is None:
        return []
    source = random_access_of(setting.images.test)

    def name(number: int) -> str:
        path = source.path(number) if source is not None else None
        return str(pathlib.Path(*pathlib.Path(path).parts[-2:])) if path else ""

    explained = attempt(report.EXPLANATION, lambda: examination.pictured(model, found.mistakes, name), None)
    return explained or examination.pictured(None, found.mistakes, name)


def embedding(setting: Session, model: keras.Model) -> report.Embedding | None:
    """The test images as points in the plane, colored by their classes."""
    count = image_counts(setting.images)["test"]
    if count < FEWEST_EMBEDDED or setting.task.name != Classification.name:
        return None
    return report.embed_batches(model, test_batches(setting), count)


def environment(setting: Session) -> dict[str, str]:
    """Versions, machine and devices."""
    return {
        **{name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "strategy": str(distribute.describe(setting.strategy)),
        "seed": str(setting.config.seed),
    }
