"""What `tfopt.data.load` returns: splits, names of the classes or targets, and counts."""

from __future__ import annotations  # TensorFlow is not imported for the signatures

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from tfopt._checks import message
from tfopt.data.cache import cached, check_image_size
from tfopt.data.class_balance import balance
from tfopt.data.fingerprint import fingerprint
from tfopt.data.random_access import RandomAccess, random_access_of

if TYPE_CHECKING:
    import tensorflow as tf
else:
    from tfopt._lazy import tensorflow as tf


@final
@dataclasses.dataclass(frozen=True)
class ImageDataset:
    """The splits of an image data set, with what is known about its labels.

    A label is an int64 number of a class ("classification"), float32 [classes] of zeros and ones
    ("multilabel": any number of classes per image) or float32 [targets] ("regression").

    Attributes:
        train: Unbatched `tf.data.Dataset` of (uint8 image [height, width, 3], label), or of (image, label,
            float32 weight) if the data has sample weights.
        validation: The same, or None if there is no such split.
        test: The same, or None if there is no such split.
        class_names: Name of each class; of each target in a regression.
        class_counts: For each split that exists, the number of images of each class (an image with several
            labels counts for each of them); of a regression, the number of images alone.
        skipped: Files left out because they could not be read (`on_bad_image="skip"`).
        task: "classification", "multilabel" or "regression".
        source: What was loaded: the path or the name as it was given, or a description of arrays.
        notes: What `load` decided by itself, in sentences: columns, splits, files passed over.

    Example:
        >>> data = tfopt.data.load("digits")
        >>> batches = tfopt.data.pipeline(data.train, 32, image_size=32)
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset | None
    test: tf.data.Dataset | None
    class_names: tuple[str, ...]
    class_counts: dict[str, list[int]]
    skipped: tuple[str, ...] = ()
    task: str = "classification"
    source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def has_sample_weights(self) -> bool:
        """Whether the elements of the splits end in a weight."""
        return len(self.train.element_spec) == 3

    @property
    def example_counts(self) -> dict[str, int]:
        """The number of images in each split that exists."""
        return {name: int(split.cardinality()) for name, split in self.splits().items() if split is not None}

    def fingerprint(self, content: bool = False) -> str:
        """32 hexadecimal digits that change when the images or the labels change.

        It covers the splits, the labels, the weights and the names; of files the relative paths, sizes,
        modification times, and the content of some; of arrays all bytes; of TensorFlow Datasets the record
        files. Of another `tf.data.Dataset` only the form and the length are known. Copying the folder
        elsewhere with its times keeps the fingerprint.

        Args:
            content: Read the files and hash what is in them instead of their times.
        """
        described = [self.task, self.class_names]
        return fingerprint({k: v for k, v in self.splits().items() if v is not None}, described, content)

    def resized(
        self,
        image_size: int | tuple[int, int],
        *,
        crop_to_aspect_ratio: bool = False,
        cache: str | None = "auto",
    ) -> ImageDataset:
        """Decodes and resizes every split once, for data that is read several times.

        Args:
            image_size: (height, width) or one number for both.
            crop_to_aspect_ratio: Cut the middle of each image instead of stretching it.
            cache: "memory", "disk", None or "auto", as in `pipeline`.

        Raises:
            BadImageError: If a file cannot be decoded; it names the file.
        """
        size = check_image_size(image_size)
        splits: dict[str, Any] = dict(self.splits())
        for name, split in splits.items():
            if split is not None:
                source = cached(split, size, cache, crop_to_aspect_ratio)
                if isinstance(source, RandomAccess):
                    source.regression = self.task == "regression"
                splits[name] = source.as_dataset()
        return dataclasses.replace(self, **splits)

    def balanced(
        self, method: str = "oversample", *, target: Sequence[float] | None = None, seed: int = 0
    ) -> ImageDataset:
        """The same data with the classes of train balanced, as `tfopt.data.balance` does.

        `class_counts["train"]` says what an epoch then has; the counts before are those of this object.

        Raises:
            ValueError: If an image does not have exactly one class.
        """
        if self.task != "classification":
            fix = "Only images with one class each can be balanced. Use sample weights instead."
            raise ValueError(message("balanced", "called on a classification", self.task, fix))
        train = balance(self.train, method, target=target, seed=seed)
        source = random_access_of(train)
        counts = _count(source, self) if source else self.class_counts.get("train", [])
        return dataclasses.replace(self, train=train, class_counts={**self.class_counts, "train": counts})

    def splits(self) -> dict[str, tf.data.Dataset | None]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def image_dataset(
    splits: dict[str, RandomAccess], class_names: tuple[str, ...], **about: Any
) -> ImageDataset:
    """Assembles an `ImageDataset` from examples that can be read in any order.

    Args:
        splits: Examples by the name of their split; those without examples are left out.
        class_names: Of the classes or targets.
        **about: Other attributes of the `ImageDataset`.
    """
    present = [name for name in ("train", "validation", "test") if name in splits and len(splits[name])]
    if "train" not in present:
        raise ValueError(message("source", "with images in its training split", about.get("source", "")))
    data = ImageDataset(None, None, None, class_names, {}, **about)
    datasets = {}
    for name in present:
        splits[name].regression = data.task == "regression"
        datasets[name] = splits[name].as_dataset()
    counts: dict[str, list[int]] = {name: _count(splits[name], data) for name in present}
    return dataclasses.replace(data, **datasets, class_counts=counts)


def _count(source: RandomAccess, data: ImageDataset) -> list[int]:
    if data.task == "regression":
        return [len(source)]
    if data.task == "multilabel":
        return source.labels.sum(0).astype(np.int64).tolist()
    return np.bincount(source.labels, minlength=len(data.class_names)).tolist()
