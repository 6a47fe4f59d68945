"""A trained classifier from a file, `.keras` or `.tflite`, behind the same three names."""

import pathlib
from collections.abc import Sequence
from typing import Any, final

import keras
import numpy as np

from tfopt import compress
from tfopt.data.decode import decode
from tfopt.recipes.run_folder import stored_class_names

_AT_ONCE = 64  # images in memory: thousands at once would take gigabytes


@final
class Classifier:
    """Probabilities of classes for images, from a `.keras` or `.tflite` file that `finetune` wrote.

    Args:
        path: The file.

    Attributes:
        model: The `keras.Model` or `TFLiteModel`.
        image_size: Height and width in pixels.
        stored_class_names: Names of the outputs, or None if the file holds none.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is neither a `.keras` nor a `.tflite` file, cannot be loaded, or takes any size.
    """

    def __init__(self, path: str | pathlib.Path) -> None:
        self.path = pathlib.Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"`model` must be a file. Received: model={str(path)!r}.")
        if self.path.suffix not in (".keras", ".tflite"):
            raise ValueError(f"`model` must be a .keras or .tflite file. Received: model={str(path)!r}.")
        names: Sequence[str] | None
        self.model: Any
        self._predict: Any
        if self.path.suffix == ".tflite":
            file = compress.TFLiteModel(self.path)
            self.model = file
            self._predict, shape, names = file.predict, file.input_shape, file.class_names
        else:
            model = keras.models.load_model(self.path, compile=False)
            self.model = model
            self._predict = lambda images: model.predict(images, verbose=0)
            shape, names = model.input_shape[1:], stored_class_names(self.path)
        if None in shape[:2]:
            raise ValueError(f"`model` must have a fixed image size. Received: {str(path)!r} takes {shape}.")
        self.image_size: tuple[int, int] = (int(shape[0]), int(shape[1]))
        self.stored_class_names = names

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the outputs.

        Raises:
            ValueError: If the file holds none.
        """
        if self.stored_class_names is None:
            raise ValueError(f"{str(self.path)!r} holds no class names. Files from `tfopt finetune` do.")
        return self.stored_class_names

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities `[examples, classes]` of float32 or uint8 pixels `[examples, height, width, 3]`."""
        return np.asarray(self._predict(images.astype("float32")))

    def predict_files(self, paths: Sequence[str | pathlib.Path]) -> np.ndarray:
        """Probabilities `[files, classes]` of image files, resized as in training.

        Raises:
            BadImageError: If a file is no image.
        """
        parts = [paths[first : first + _AT_ONCE] for first in range(0, len(paths), _AT_ONCE)]
        return np.concatenate(
            [self.predict(np.stack([decode(str(path), self.image_size) for path in part])) for part in parts]
        )
