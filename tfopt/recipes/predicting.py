"""`predict`: what is on these pictures?"""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfopt import _checks
from tfopt.recipes.classifier import Classifier


class Prediction(NamedTuple):
    """The most probable classes of one image, with their probabilities, the best first."""

    path: str
    classes: list[tuple[str, float]]


def predict(
    model: str | pathlib.Path, images: Sequence[str | pathlib.Path], *, top: int = 3
) -> list[Prediction]:
    """Classifies image files by a `.keras` or `.tflite` file that `finetune` wrote.

    Args:
        model: The file.
        images: Paths of images, at least one.
        top: How many classes to name for each, >= 1.

    Raises:
        FileNotFoundError: If the model does not exist.
        BadImageError: If an image cannot be read.
        ValueError: If a value is out of its bounds.

    Example:
        >>> from tfopt.recipes import predict
        >>> predict("runs/finetune/model.tflite", ["photo.jpg"])[0].classes[0]
        ('sunflower', 0.97)
    """
    _checks.check_integer("top", top, minimum=1)
    if not images:
        raise ValueError(_checks.message("images", "at least one path", images))
    classifier = Classifier(model)
    names = classifier.class_names
    return [
        Prediction(str(path), [(names[index], float(row[index])) for index in np.argsort(-row)[:top]])
        for path, row in zip(images, classifier.predict_files(images))
    ]
