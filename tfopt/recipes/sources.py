"""The images of a job: where they come from, how many there are, and what their labels mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfopt import data, tasks
from tfopt._checks import message
from tfopt.data.random_access import random_access_of
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.data_options import several_columns


def load_images(
    source: Any, config: FinetuneConfig, needed: Sequence[str] = ("validation", "test")
) -> data.ImageDataset:
    """The images as they are stored.

    Args:
        source: What `tfopt.data.load` takes or returns.
        config: Options of the run.
        needed: Splits that must exist.

    Raises:
        ValueError: If a split is missing.
    """
    task = None if config.task == "auto" else config.task
    if isinstance(source, data.ImageDataset):
        images = source
        if task not in (None, images.task):
            fix = "Load it with `tfopt.data.load(..., task=...)`."
            raise ValueError(message("task", f"that of the data, {images.task!r}", task, fix))
    else:
        images = data.load(
            source,
            seed=config.seed,
            on_bad_image=config.on_bad_image,
            task=task,
            image_column=config.image_column,
            label_column=several_columns(config.label_column),
        )
    for split in needed:
        if getattr(images, split) is None:
            raise ValueError(f"`data` must have a {split} split to choose and to verify the model by.")
    return images


def size_of(images: data.ImageDataset) -> tuple[int, int] | None:
    """Height and width of the images if they all share it, else None."""
    height, width = images.train.element_spec[0].shape[:2]
    return None if height is None or width is None else (height, width)


def image_counts(images: data.ImageDataset) -> dict[str, int]:
    """The number of images in each split, known also where a dataset cannot say its length."""
    if images.task == "classification":
        return {name: sum(counts) for name, counts in images.class_counts.items()}
    return images.example_counts


def source_of(source: Any) -> Any:
    """What the images were loaded from, as it was given."""
    return getattr(source, "source", None) if isinstance(source, data.ImageDataset) else source


def task_of(images: data.ImageDataset) -> tasks.Task:
    """What the labels of the images mean."""
    stored: dict[str, Any] = {"task": images.task, "names": images.class_names}
    if images.task == "regression":
        source = random_access_of(images.train)  # else every image has to be read
        numbers = images.train.map(lambda image, label, *_: label)
        labels = np.stack(list(numbers.as_numpy_iterator())) if source is None else source.labels
        stored |= {"mean": labels.mean(axis=0), "deviation": np.maximum(labels.std(axis=0), 1e-6)}
    return tasks.make_task(stored)
