"""What makes two runs the same run."""

import hashlib
import pathlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import keras
import numpy as np

from tfopt import data

_ELSEWHERE = ("output", "overwrite", "tensorboard")  # options that change no result


def identity(
    options: dict[str, Any], images: data.ImageDataset, models: Sequence[Any] = ()
) -> dict[str, Any]:
    """What makes two runs the same run; where results and curves go does not.

    The images and the models themselves count, not only their names: other images of the same number, or
    another model under the same path, are another run.

    Args:
        options: The options of the run.
        images: As they are stored, before they are resized.
        models: Files and Keras models that the run begins with.
    """
    options = {name: value for name, value in options.items() if name not in _ELSEWHERE}
    packages = {name: version(name) for name in ("tfopt", "tensorflow", "keras")}
    return {
        **options,
        **packages,
        "classes": images.class_names,
        "counts": images.class_counts,
        "images": images.fingerprint(),
        "content of the model": [_content(model) for model in models],
    }


def _content(model: Any) -> str:
    """A hash of the bytes of a file, or of the weights of a model."""
    digest = hashlib.sha256()
    if isinstance(model, keras.Model):
        for weight in model.get_weights():
            digest.update(np.ascontiguousarray(weight).tobytes())
    else:
        digest.update(pathlib.Path(model).read_bytes())
    return digest.hexdigest()
