"""Fills the report of a run: what was done, how good it is, and where it fails."""

import datetime
import pathlib
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import keras
import numpy as np

from tfopt import distribute, report
from tfopt.compress import Comparison, TFLiteModel
from tfopt.recipes.run_folder import StageRecord
from tfopt.recipes.setting import Setting

SAMPLES = 24
MISTAKES = 12
EXPLAINED = 6  # of the mistakes, with a Grad-CAM
FEWEST_EMBEDDED = 3  # images that a plot in two dimensions needs
PACKAGES = ("tfopt", "tensorflow", "keras", "tensorflow-model-optimization", "numpy")


def write_report(
    path: pathlib.Path,
    setting: Setting,
    records: Sequence[StageRecord],
    model: keras.Model,
    file: TFLiteModel,
    comparison: Comparison,
    started: float,
    *,
    title: str = "",
    options: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes the report and returns its path; without options, those of the setting."""
    images, labels = test_arrays(setting)
    probabilities = file.predict(images)
    samples, sample_labels = augmented_samples(setting)
    notes = [f"Left out as unreadable: {path}" for path in setting.images.skipped]
    content = report.Report(
        title=title or f"Fine-tuning {model.name}",
        subtitle=f"{setting.classes} classes, {datetime.datetime.now():%d %B %Y, %H:%M}",
        class_names=setting.images.class_names,
        class_counts=setting.images.class_counts,
        balanced_counts=setting.balanced.class_counts["train"] if setting.config.balance else None,
        models=model_rows(comparison),
        stages=[report.Stage(record.name, record.history, record.seconds) for record in records],
        samples=samples,
        sample_labels=sample_labels,
        confusion=confusion_matrix(labels, probabilities.argmax(axis=1), setting.classes),
        evaluated_model=comparison.rows[-1].name,
        mistakes=confident_mistakes(model, images, labels, probabilities),
        embedding=report.embed(model, images, labels) if len(images) >= FEWEST_EMBEDDED else None,
        options=options or setting.config.to_dict(),
        environment=environment(setting),
        notes=notes,
        seconds=time.perf_counter() - started,
    )
    return report.write(path, content)


def test_arrays(setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """The test images, float32, and their integer labels."""
    pairs = [(images.numpy(), labels.numpy()) for images, labels in setting.plain("test")]
    images, labels = (np.concatenate(arrays) for arrays in zip(*pairs))
    return images, labels.argmax(axis=1)


def model_rows(comparison: Comparison) -> list[report.ModelRow]:
    """The comparison as the report draws it."""
    return [
        report.ModelRow(
            row.name,
            accuracy=row.accuracy,
            interval=(row.accuracy_low, row.accuracy_high),
            bytes=row.bytes,
            zipped_bytes=row.bytes_zipped,
            latency_ms=row.latency.median_ms,
            latency_spread=(row.latency.p10_ms, row.latency.p90_ms),
            agreement=row.agreement,
            note="exported and verified" if row is comparison.rows[-1] else "",
        )
        for row in comparison.rows
    ]


def augmented_samples(setting: Setting) -> tuple[np.ndarray, list[int]]:
    """The first training images as the model sees them."""
    batches = [(images.numpy(), labels.numpy()) for images, labels in setting.training().take(1)]
    images, labels = batches[0]
    pixels = np.clip(np.rint(images[:SAMPLES]), 0, 255).astype("uint8")
    return pixels, labels[:SAMPLES].argmax(axis=1).tolist()


def confusion_matrix(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Counts `[classes, classes]`: row = true class, column = predicted class."""
    return np.bincount(true * classes + predicted, minlength=classes**2).reshape(classes, classes)


def confident_mistakes(
    model: keras.Model, images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray
) -> list[report.Mistake]:
    """The wrong answers, the most confident first, some with what the float model looked at."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    if not len(wrong):
        return []
    pixels = images[wrong].astype("uint8")
    explained = wrong[:EXPLAINED]
    heat = report.grad_cam(model, images[explained], predicted[explained].tolist())
    overlays = [*report.overlay(pixels[: len(explained)], heat), *[None] * (len(wrong) - len(explained))]
    return [
        report.Mistake(picture, int(labels[i]), int(predicted[i]), float(confidence[i]), overlay)
        for i, picture, overlay in zip(wrong, pixels, overlays)
    ]


def environment(setting: Setting) -> dict[str, str]:
    """Versions, machine and devices."""
    return {
        **{name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "strategy": str(distribute.describe(setting.strategy)),
        "seed": str(setting.config.seed),
    }
