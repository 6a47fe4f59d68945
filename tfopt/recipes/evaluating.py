"""`evaluate`: how good is this file on these images?"""

import pathlib
from typing import Any

from tfopt import compress, data
from tfopt.recipes.classifier import Classifier


def evaluate(
    model: str | pathlib.Path, source: Any, *, split: str = "test", seed: int = 0, on_bad_image: str = "raise"
) -> compress.Comparison:
    """Measures a `.keras` or `.tflite` file on a split of a data set.

    Args:
        model: The file.
        source: What `tfopt.data.load` takes. Use the seed of the training run where the splits are drawn,
            else images that were trained on are counted.
        split: "train", "validation" or "test".
        seed: Of the splits.
        on_bad_image: "raise" or "skip".

    Returns:
        A `tfopt.compress.Comparison` of one row.

    Raises:
        FileNotFoundError: If the model does not exist.
        ValueError: If the classes of the file and of the data differ, or the split does not exist.
    """
    classifier = Classifier(model)
    images = data.load(source, seed=seed, on_bad_image=on_bad_image)
    names = classifier.class_names
    if list(names) != list(images.class_names):
        raise ValueError(
            f"The classes of the model and of the data differ: {list(names)} and {list(images.class_names)}."
        )
    chosen = images.splits().get(split)
    if chosen is None:
        present = [name for name, value in images.splits().items() if value is not None]
        raise ValueError(f"`split` must be one of {present}. Received: split={split!r}.")
    batches = data.pipeline(chosen, 32, image_size=classifier.image_size, shuffle=False)
    return compress.compare({classifier.path.name: classifier.model}, batches)
