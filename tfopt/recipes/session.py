"""A job, opened: data, options, devices and a place to report progress, for every command and stage."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from tfopt import data, distribute, tasks
from tfopt._optional import missing, require
from tfopt.distribute.workers import Workers
from tfopt.models.precision import in_precision
from tfopt.recipes import augmenting
from tfopt.recipes.class_weight import class_weights, with_class_weights
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.devices import strategy_of
from tfopt.recipes.labels_in_place import with_labels_in_place
from tfopt.recipes.leaking import leak_text
from tfopt.recipes.missing_classes import lacking_text
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.resolved_config import ResolvedConfig
from tfopt.recipes.sampling import sampled
from tfopt.recipes.sources import image_counts, load_images, size_of, task_of

SAMPLED_BATCHES = 16
# Optional packages of the report of classes: module -> the section that needs it.
_OF_THE_REPORT = {"sklearn": "The map of the images in the report"}


@final
@dataclasses.dataclass(frozen=True)
class Session:
    """What commands and stages work on. `Session.open` makes it.

    Args:
        config: Resolved options.
        images: The data set, resized; `validation` and `test` exist.
        stored: The data set as it is stored, before it is resized.
        task: What the labels mean.
        strategy: What `fit` trains under. With several replicas it trains a copy (`training_copy`): a
            model that lives in their scope gives answers once per replica everywhere else.
        progress: Where to report.
        checkpoints: Stage -> folder for what it needs to go on after an interruption; None keeps nothing.
        logs: Stage -> folder for its TensorBoard curves; None writes none.
        callbacks: Keras callbacks of the caller, for every stage that calls `fit`.
        learned_validation: Whether the model has learned from the validation images, which then do not tell
            how good it is.
    """

    config: ResolvedConfig
    images: data.ImageDataset
    stored: data.ImageDataset
    task: tasks.Task
    strategy: tf.distribute.Strategy
    progress: ConsoleProgress
    checkpoints: Callable[[str], pathlib.Path | None] | None = None
    logs: Callable[[str], pathlib.Path] | None = None
    callbacks: Sequence[keras.callbacks.Callback] = ()
    learned_validation: bool = False

    @classmethod
    def open(
        cls,
        source: Any,
        config: FinetuneConfig,
        *,
        strategy: tf.distribute.Strategy | None = None,
        progress: ConsoleProgress | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> "Session":
        """Loads the images, chooses what the options leave open, and resizes the images once.

        Args:
            source: What `tfopt.data.load` takes or returns.
            config: Options, resolved or not.
            strategy: None makes that of the options.
            progress: None reports nothing.
            callbacks: Keras callbacks of the caller.

        Raises:
            ValueError: If an option does not fit the data, or a split is missing.
            ImportError: If an option needs a package that is not installed.
        """
        if config.tensorboard:
            require("tensorboard", "Writing curves for TensorBoard")  # before hours of training
        strategy = strategy or strategy_of(config)
        stored = load_images(source, config)
        resolved = with_labels_in_place(config.resolved(size_of(stored)), config, task_of(stored))
        if resolved.balance is not None and stored.task != "classification":
            stored.balanced(resolved.balance)  # says why not
        if resolved.class_weight is not None:  # before all images are decoded
            if resolved.balance is not None:
                fix = f"Received: balance={resolved.balance!r}, class_weight={resolved.class_weight!r}."
                raise ValueError(f"`balance` and `class_weight` would correct twice: choose one. {fix}")
            class_weights(resolved.class_weight, task_of(stored), stored.class_counts["train"])
        if augmenting.is_of_the_caller(resolved.augment):
            augmenting.changing(resolved.augment, resolved.input_size)
        images = stored.resized(resolved.input_size)
        if progress is None or not distribute.is_chief(strategy):
            progress = ConsoleProgress(Console(quiet=True))
        return cls(resolved, images, stored, task_of(stored), strategy, progress, callbacks=callbacks)

    def changed(self, **options: Any) -> "Session":
        """The same with other options."""
        return dataclasses.replace(self, config=dataclasses.replace(self.config, **options))

    def in_folder(
        self, checkpoints: Callable[[str], pathlib.Path | None], logs: Callable[[str], pathlib.Path]
    ) -> "Session":
        """The same with a place for checkpoints, and for the chief's curves if they are asked for."""
        chosen = logs if self.config.tensorboard and self.workers.is_chief else None
        return dataclasses.replace(self, checkpoints=checkpoints, logs=chosen)

    @functools.cached_property
    def workers(self) -> Workers:
        """The processes that run this job together."""
        return Workers(self.strategy)

    @property
    def home(self) -> tf.distribute.Strategy:
        """Where models live outside of `fit`: on one device."""
        several = self.strategy.num_replicas_in_sync > 1
        return tf.distribute.get_strategy() if several else self.strategy

    def training_copy(self, model: keras.Model, precision: str | None = None) -> keras.Model:
        """A copy of a model under the strategy, for `fit`; on all workers it has the chief's weights.

        With one replica, and in the precision that the model has, it is the model itself.
        """
        if self.strategy.num_replicas_in_sync == 1 and precision is None:
            return model
        with self.strategy.scope():
            copy = in_precision(model, precision)
        self.workers.synchronize(copy)
        return copy

    @property
    def validation(self) -> str:
        """The name of what is measured on the validation images."""
        return "validation (learned from)" if self.learned_validation else "validation"

    def progress_text(self, logs: Mapping[str, float]) -> str:
        """What an epoch has reached, in a few words."""
        return self.task.progress_text(logs, self.validation)

    @property
    def classes(self) -> int:
        """Number of outputs: classes, labels or targets."""
        return self.task.outputs

    @property
    def counts_text(self) -> str:
        """How many images of how many classes, in one line."""
        return self.task.counts_text(image_counts(self.images))

    @functools.cached_property
    def leak_text(self) -> str:
        """A warning if images are in two splits, or have two classes; else ""."""
        return leak_text(self.images)

    def announce(self) -> None:
        """Says how many images there are, what is wrong with them, and what the report will lack."""
        one_class = self.task.name == tasks.Classification.name
        lacking = missing(_OF_THE_REPORT) if one_class else []
        for text in filter(None, (self.counts_text, lacking_text(self.images), self.leak_text, *lacking)):
            self.progress.say(text)

    @functools.cached_property
    def balanced(self) -> data.ImageDataset:
        """The images with the classes of the training split balanced, if that was asked for."""
        method = self.config.balance
        return self.images if method is None else self.images.balanced(method, seed=self.config.seed)

    @functools.cached_property
    def class_weights(self) -> np.ndarray | None:
        """The weight of each class in training, or None for all the same."""
        option, counts = self.config.class_weight, self.balanced.class_counts["train"]
        return None if option is None else class_weights(option, self.task, counts)

    def plain(self, split: str, weighted: bool = False) -> tf.data.Dataset:
        """Batches of one split in a fixed order, as they are, with encoded labels.

        Args:
            split: Its name.
            weighted: With the weights of classes, as for training; those of images are always there.
        """
        dataset = getattr(self.balanced, split)
        batches = data.pipeline(dataset, self.config.batch_size, shuffle=False, seed=self.config.seed)
        return self._encoded(batches, weighted=weighted)

    def sample(
        self,
        split: str = "train",
        *,
        images: int | None = None,
        augmented: bool = False,
        weighted: bool = False,
    ) -> tf.data.Dataset:
        """Some batches of a split, in which all classes are mixed in proportion.

        For whatever looks at a part of the images: statistics of batch normalization, ranges of activations,
        the choice of channels, the scale of pixels. The first images of a folder are of a few classes.

        Args:
            split: Its name.
            images: How many at most; None is `SAMPLED_BATCHES` batches.
            augmented: Varied as in training.
            weighted: With the weights of images and classes that training gives them, if any.
        """
        count = images or SAMPLED_BATCHES * self.config.batch_size
        chosen = sampled(getattr(self.balanced, split), count, self.config.seed)
        if not weighted:
            chosen = chosen.map(lambda image, label, *_: (image, label))
        batches = self._read(chosen, augmented, shuffle=False)
        return self._encoded(batches, augmented=augmented, weighted=weighted)

    def training(self, *, shuffle: bool = True, first_epoch: int = 0) -> tf.data.Dataset:
        """Augmented batches of the training split with encoded or mixed labels, and weights if any."""
        batches = self._read(self.balanced.train, True, shuffle=shuffle, first_epoch=first_epoch)
        return self._encoded(batches, augmented=True, weighted=True)

    def _read(self, dataset: tf.data.Dataset, augmented: bool, **options: Any) -> tf.data.Dataset:
        augment = self.config.augment if augmented else None
        options |= {"augment": augment if isinstance(augment, data.Augment) else None}
        options |= {"seed": self.config.seed, "classes": self.classes, "boxes": False}  # `open` asked
        return data.pipeline(dataset, self.config.batch_size, **options)

    def _encoded(
        self, batches: tf.data.Dataset, *, augmented: bool = False, weighted: bool = False
    ) -> tf.data.Dataset:
        finished = batches
        if not batches.element_spec[1].dtype.is_floating:
            encoded = self.task.encoded
            finished = batches.map(lambda images, labels, *weights: (images, encoded(labels), *weights))
        if weighted and self.class_weights is not None:
            table = self.class_weights
            finished = finished.map(lambda images, *rest: (images, *with_class_weights(table, *rest)))
        if augmented and augmenting.is_of_the_caller(self.config.augment):
            change = augmenting.changing(self.config.augment, self.config.input_size)
            finished = finished.map(lambda images, *rest: (change(images), *rest)).prefetch(2)
        if self.config.data_threads != "auto":
            options = tf.data.Options()
            options.threading.private_threadpool_size = self.config.data_threads
            finished = finished.with_options(options)
        finished.position = batches.position  # by which `Resume` starts inside an epoch
        return finished
