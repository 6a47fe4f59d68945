"""What `tfopt.data.load` returns: splits, class names and counts."""

import dataclasses
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import tensorflow as tf

from tfopt.data.access import RandomAccess, random_access_of
from tfopt.data.cache import cached, check_image_size
from tfopt.data.class_balance import balance


@final
@dataclasses.dataclass(frozen=True)
class ImageDataset:
    """The splits of an image classification data set, with what is known about its classes.

    Attributes:
        train: Unbatched `tf.data.Dataset` of (uint8 image [height, width, 3], int64 label).
        validation: The same, or None if there is no such split.
        test: The same, or None if there is no such split.
        class_names: Name of each label.
        class_counts: For each split that exists, the number of images of each class.
        skipped: Files left out because they could not be read (`on_bad_image="skip"`).

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

    def resized(
        self,
        image_size: int | tuple[int, int],
        *,
        crop_to_aspect_ratio: bool = False,
        cache: str | None = "auto",
    ) -> "ImageDataset":
        """Decodes and resizes every split once, for data that is read several times.

        Args:
            image_size: (height, width) or one number for both.
            crop_to_aspect_ratio: Cut the middle of each image instead of stretching it.
            cache: "memory", "disk", None or "auto", as in `pipeline`.

        Raises:
            BadImageError: names a file that cannot be decoded.
        """
        size = check_image_size(image_size)
        splits: dict[str, Any] = {
            name: None if split is None else cached(split, size, cache, crop_to_aspect_ratio).as_dataset()
            for name, split in self.splits().items()
        }
        return dataclasses.replace(self, **splits)

    def balanced(
        self, method: str = "oversample", *, target: Sequence[float] | None = None, seed: int = 0
    ) -> "ImageDataset":
        """The same data with the classes of train balanced, as `tfopt.data.balance` does.

        `class_counts["train"]` says what an epoch then has; the counts before are those of this object.
        """
        train = balance(self.train, method, target=target, seed=seed)
        source = random_access_of(train)
        counts = _count(source.labels, self.class_names) if source else self.class_counts.get("train", [])
        return dataclasses.replace(self, train=train, class_counts={**self.class_counts, "train": counts})

    def splits(self) -> dict[str, tf.data.Dataset | None]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def image_dataset(
    splits: dict[str, RandomAccess], class_names: tuple[str, ...], skipped: tuple[str, ...] = ()
) -> ImageDataset:
    """Assembles an `ImageDataset` from examples that can be read in any order."""
    present = [name for name in ("train", "validation", "test") if name in splits and len(splits[name])]
    counts: dict[str, list[int]] = {name: _count(splits[name].labels, class_names) for name in present}
    datasets = {name: splits[name].as_dataset() for name in counts}
    return ImageDataset(
        datasets["train"], datasets.get("validation"), datasets.get("test"), class_names, counts, skipped
    )


def _count(labels: np.ndarray, class_names: tuple[str, ...]) -> list[int]:
    return np.bincount(labels, minlength=len(class_names)).tolist()
