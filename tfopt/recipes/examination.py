"""What the report shows of the test images, gathered by the batch: no split is held in memory."""

import dataclasses
import heapq
from collections.abc import Callable, Iterable
from typing import Any, final

import keras
import numpy as np

from tfopt import report
from tfopt.tasks.tally import ClassCounts

MISTAKES = 12
EXPLAINED = 6  # of the mistakes, with a Grad-CAM

Batches = Iterable[tuple[np.ndarray, np.ndarray]]


@final
@dataclasses.dataclass(frozen=True)
class WrongAnswer:
    """An image whose class was not recognized, by its number in the split."""

    number: int
    image: np.ndarray
    true: int
    predicted: int
    confidence: float


@final
@dataclasses.dataclass(frozen=True)
class Answers:
    """What a model answered.

    Attributes:
        confusion: Counts `[classes, classes]`, row = true class.
        mistakes: Its surest ones.
        measures: As `Classification.measures`.
    """

    confusion: np.ndarray
    mistakes: list[WrongAnswer]
    measures: dict[str, Any]


def answers(predict: Callable[[np.ndarray], np.ndarray], batches: Batches, classes: int) -> Answers:
    """Runs a model once over (images, integer classes)."""
    tally = ClassCounts(tuple(map(str, range(classes))))
    surest: list[tuple[float, int, WrongAnswer]] = []
    start = 0
    for images, labels in batches:
        probabilities = predict(images)
        predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
        tally.add(labels, probabilities)
        for i in np.flatnonzero(predicted != labels):
            wrong = WrongAnswer(
                start + int(i), images[i], int(labels[i]), int(predicted[i]), float(confidence[i])
            )
            heapq.heappush(surest, (wrong.confidence, -wrong.number, wrong))
            if len(surest) > MISTAKES:
                heapq.heappop(surest)
        start += len(images)
    mistakes = [wrong for *_, wrong in sorted(surest, key=lambda item: item[:2], reverse=True)]
    measures = tally.measures()
    return Answers(np.array(measures["confusion"]), mistakes, measures)


def pictured(
    model: keras.Model | None, mistakes: list[WrongAnswer], name: Callable[[int], str]
) -> list[report.Mistake]:
    """The mistakes as the report draws them, some with what the float model looked at.

    Args:
        model: For Grad-CAM; None draws none.
        mistakes: The surest first.
        name: Gives the file of an image by its number in the split, or "".
    """
    pixels: list[np.ndarray] = [wrong.image.astype("uint8") for wrong in mistakes]
    overlays: list[np.ndarray | None] = [None] * len(mistakes)
    explained = mistakes[:EXPLAINED]
    if model is not None and explained:
        images = np.stack([wrong.image for wrong in explained])
        heat = report.grad_cam(model, images, [wrong.predicted for wrong in explained])
        overlays[: len(explained)] = report.overlay(np.stack(pixels[: len(explained)]), heat)
    return [
        report.Mistake(picture, wrong.true, wrong.predicted, wrong.confidence, overlay, name(wrong.number))
        for wrong, picture, overlay in zip(mistakes, pixels, overlays)
    ]
