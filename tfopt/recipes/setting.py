"""What every stage of a recipe needs: options, images, devices and a place to report progress."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfopt import data
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.resolved_config import ResolvedConfig
from tfopt.recipes.sampling import sampled

SAMPLED_BATCHES = 16


@dataclasses.dataclass(frozen=True)
class Setting:
    """The surroundings of a stage.

    Args:
        config: Resolved options.
        images: The data set, resized; `validation` and `test` exist.
        strategy: Where the models live.
        progress: Where to report.
        checkpoints: Stage -> folder for what it needs to go on after an interruption; None keeps nothing.
    """

    config: ResolvedConfig
    images: data.ImageDataset
    strategy: tf.distribute.Strategy
    progress: ConsoleProgress
    checkpoints: Callable[[str], pathlib.Path] | None = None

    def changed(self, **options: Any) -> "Setting":
        """The same with other options."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, **options))

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.images.class_names)

    @functools.cached_property
    def balanced(self) -> data.ImageDataset:
        """The images with the classes of the training split balanced, if that was asked for."""
        method = self.config.balance
        return self.images if method is None else self.images.balanced(method, seed=self.config.seed)

    def plain(self, split: str) -> tf.data.Dataset:
        """Batches of one split in a fixed order, as they are, with one-hot labels."""
        dataset = getattr(self.balanced, split)
        batches = data.pipeline(dataset, self.config.batch_size, shuffle=False, seed=self.config.seed)
        return self._one_hot(batches)

    def sample(self, *, augmented: bool = False) -> tf.data.Dataset:
        """Up to `SAMPLED_BATCHES` batches of training images, in which all classes are mixed in proportion.

        For whatever looks at a part of the training images: statistics of batch normalization, ranges of
        activations, the choice of channels.
        """
        size = self.config.batch_size
        chosen = sampled(self.balanced.train, SAMPLED_BATCHES * size, self.config.seed)
        augment = self.config.augment if augmented else None
        options: dict[str, Any] = {"seed": self.config.seed, "classes": self.classes, "shuffle": False}
        return self._one_hot(data.pipeline(chosen, size, augment=augment, **options))

    def training(self, *, shuffle: bool = True, first_epoch: int = 0) -> tf.data.Dataset:
        """Augmented batches of the training split with one-hot or mixed labels."""
        return self._one_hot(
            data.pipeline(
                self.balanced.train,
                self.config.batch_size,
                augment=self.config.augment,
                shuffle=shuffle,
                seed=self.config.seed,
                first_epoch=first_epoch,
                classes=self.classes,
            )
        )

    def _one_hot(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        finished = batches  # as it is where MixUp and CutMix gave soft labels
        if not batches.element_spec[1].dtype.is_floating:
            finished = batches.map(lambda images, labels: (images, tf.one_hot(labels, self.classes)))
        if self.config.data_threads != "auto":
            options = tf.data.Options()
            options.threading.private_threadpool_size = self.config.data_threads
            finished = finished.with_options(options)
        finished.position = batches.position  # by which `Resume` starts inside an epoch
        return finished
