"""Reads, augments and batches the examples of one epoch, for `pipeline`."""

import abc
import functools
import os
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import tensorflow as tf

from tfopt.data.augment import Augment
from tfopt.data.python_call import call_python
from tfopt.data.random_access import InMemory, RandomAccess
from tfopt.data.sampler import Position, Sampler
from tfopt.data.stream import Stream

# Parallel calls that gather batches from memory. More do not help, as memory bandwidth is the limit.
# tf.data.AUTOTUNE finds the same number, but searches for it in every epoch and can delay its start by 30 ms.
_THREADS = min(4, os.cpu_count() or 1)


def make_reader(
    source: RandomAccess | Stream,
    sampler: Sampler,
    augment: Augment | None,
    classes: int | None,
    boxes: str | None = None,
    masks: bool = False,
) -> "Reader":
    """The reader for a kind of source."""
    kind = StreamReader if isinstance(source, Stream) else IndexReader
    return kind(source, sampler, augment, classes, boxes, masks)


class Reader(abc.ABC):
    """Yields the examples of an epoch in the order of a sampler.

    Args:
        source: The examples, resized to one size.
        sampler: The order of the examples and the size of the batches.
        augment: Augmentation of the images, or None.
        classes: Number of classes; needed by MixUp and CutMix.
        boxes: Format of labels that are boxes, which move with the image; None if they are something else.
        masks: Whether labels are masks, which move with the image.
    """

    def __init__(
        self,
        source: Any,
        sampler: Sampler,
        augment: Augment | None,
        classes: int | None,
        boxes: str | None,
        masks: bool,
    ) -> None:
        self.source, self.sampler, self.augment, self.classes = source, sampler, augment, classes
        self.boxes = boxes if augment is not None else None
        self.masks = masks
        self.mixes = augment is not None and augment.mixes

    def epoch(self, epoch: tf.Tensor, first_batch: tf.Tensor) -> tf.data.Dataset:
        """The batches of an epoch; those before `first_batch` are zeros."""
        size = self.sampler.batch_size
        examples = self.examples(epoch, first_batch * size)
        return self.mixed(examples.batch(size, drop_remainder=self.sampler.drop_remainder))

    def next_epoch(self, position: Position) -> tf.data.Dataset:
        """The batches of the epoch that `position` holds when the iteration starts."""
        return tf.data.Dataset.range(1).flat_map(lambda _: self.epoch(*position.take()))

    @abc.abstractmethod
    def examples(self, epoch: tf.Tensor, first: tf.Tensor) -> tf.data.Dataset:
        """(image, label[, weight]) in the order of the epoch; if batches are mixed, epoch and index follow.

        Examples before `first` are zeros.
        """

    def mixed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Applies MixUp or CutMix to batches of `examples`, if the augmentation has them."""
        augment, classes = self.augment, self.classes
        if augment is None or not self.mixes:
            return batches

        def mix(images: tf.Tensor, labels: tf.Tensor, *more: tf.Tensor) -> Any:
            *weights, epoch, index = more
            where = {"seed": self.sampler.seed, "epoch": epoch, "index": index}
            return augment.batch(images, labels, *weights, classes=classes, **where)

        return batches.map(mix, num_parallel_calls=tf.data.AUTOTUNE)

    def _example(self, image: tf.Tensor, targets: Any, epoch: tf.Tensor, index: tf.Tensor) -> Any:
        """Augments one image; appends (epoch, index) if mixing needs them."""
        if self.augment is None:
            image = tf.cast(image, tf.float32)
        else:
            where = {"seed": self.sampler.seed, "epoch": epoch, "index": index}
            image = self.augment.image(image, **where)
            if self.boxes is not None:
                boxes = self.augment.boxes(targets[0], self.boxes, self.source.image_size, **where)
                targets = [boxes, *targets[1:]]
            if self.masks:
                targets = [self.augment.mask(targets[0], **where), *targets[1:]]
        return (image, *targets, epoch, index) if self.mixes else (image, *targets)

    def _zeros(self, targets: Sequence[tf.TensorSpec]) -> tf.data.Dataset:
        """A dataset of one example of zeros, with the structure of `examples`."""
        if self.boxes is not None:
            targets = [tf.TensorSpec(targets[0].shape, tf.float32), *targets[1:]]
        zeros = tf.zeros((*self.source.image_size, 3)), *(tf.zeros(it.shape, it.dtype) for it in targets)
        number = tf.constant(0, tf.int64)
        return tf.data.Dataset.from_tensors((*zeros, number, number) if self.mixes else zeros)


@final
class IndexReader(Reader):
    """Reads examples by index."""

    def epoch(self, epoch: tf.Tensor, first_batch: tf.Tensor) -> tf.data.Dataset:
        """Gathers whole batches if no image needs work of its own."""
        if not self._by_batches:
            return super().epoch(epoch, first_batch)
        return self._batches(tf.data.Dataset.from_tensors(self._numbers(epoch, first_batch)))

    def next_epoch(self, position: Position) -> tf.data.Dataset:
        """Avoids a nested dataset where possible, so that an epoch starts at once."""
        if not self._by_batches:
            return super().next_epoch(position)

        def taken() -> np.ndarray:
            return self._numbers(*position.take()).numpy()

        @tf.autograph.experimental.do_not_convert
        def numbers(_: tf.Tensor) -> tf.Tensor:
            found = call_python(taken, [], tf.int64, stateful=True)
            return tf.ensure_shape(found, [self.sampler.length, 1])

        return self._batches(tf.data.Dataset.range(1).map(numbers))

    def examples(self, epoch: tf.Tensor, first: tf.Tensor) -> tf.data.Dataset:
        """Reads one example after the other."""
        targets = [tf.TensorSpec(values.shape[1:], values.dtype) for values in self.source.targets]
        zeros = self._zeros(targets).repeat(first)
        return zeros.concatenate(self._read(tf.data.Dataset.range(first, self.sampler.length), epoch))

    @property
    def _by_batches(self) -> bool:
        return self.augment is None and isinstance(self.source, InMemory)

    def _numbers(self, epoch: tf.Tensor, first_batch: tf.Tensor) -> tf.Tensor:
        """Example indices of an epoch, int64 [length, 1]; -1 for examples before `first_batch`."""
        places = tf.range(self.sampler.length, dtype=tf.int64)
        skipped = places < first_batch * self.sampler.batch_size
        return tf.where(skipped, tf.constant(-1, tf.int64), self.sampler.index(places, epoch))[:, None]

    def _batches(self, numbers: tf.data.Dataset) -> tf.data.Dataset:
        """Gathers batches from a dataset of one tensor with the indices of an epoch."""
        batches = numbers.rebatch(self.sampler.batch_size, drop_remainder=self.sampler.drop_remainder)
        read = tf.autograph.experimental.do_not_convert(self.source.batch)  # has nothing to convert
        return batches.map(read, num_parallel_calls=_THREADS)

    def _read(self, places: tf.data.Dataset, epoch: tf.Tensor) -> tf.data.Dataset:
        def read(place: tf.Tensor) -> Any:
            index = self.sampler.index(place, epoch)
            example = self.source.locate(index, epoch)
            targets = self.source.targets_at(example)
            return self._example(self.source.image(example), targets, epoch, index)

        return places.map(read, num_parallel_calls=tf.data.AUTOTUNE)


@final
class StreamReader(Reader):
    """Reads examples in the order of their files. Records of other workers are not decoded."""

    def examples(self, epoch: tf.Tensor, first: tf.Tensor) -> tf.data.Dataset:
        """Skips the records before `first` without decoding them."""
        sampler = self.sampler
        records = self.source.shuffled(sampler.seed, epoch) if sampler.shuffle else self.source.stored(None)
        if sampler.workers > 1:
            records = records.enumerate().filter(lambda place, _: sampler.is_mine(place))
            records = records.map(lambda _, record: record)

        def read(index: tf.Tensor, record: Any) -> Any:
            image, *targets = self.source.read(record)
            return self._example(image, targets, epoch, index)

        records = records.take(sampler.length).skip(first)
        examples = records.map(read, num_parallel_calls=tf.data.AUTOTUNE)
        return self._zeros(self.source.targets).repeat(first).concatenate(examples)


@final
class ProgressiveReader:
    """Changes the image size at given epochs; order and augmentation stay the same.

    Args:
        readers: One for each size, in the order in which they are used.
        starts: The first epoch of each reader; starts[0] is 0.
    """

    def __init__(self, readers: Sequence[Reader], starts: Sequence[int]) -> None:
        self.readers, self.starts = readers, starts

    next_epoch = Reader.next_epoch

    def epoch(self, epoch: tf.Tensor, first_batch: tf.Tensor) -> tf.data.Dataset:
        """Concatenates the epoch at every size; all but the current one are empty."""
        phase = tf.reduce_sum(tf.cast(epoch >= tf.constant(self.starts, tf.int64), tf.int64)) - 1

        def batches(number: int, reader: Reader) -> tf.data.Dataset:
            times = tf.data.Dataset.range(tf.cast(phase == number, tf.int64))
            return times.flat_map(lambda _: reader.epoch(epoch, first_batch))

        parts = [batches(number, reader) for number, reader in enumerate(self.readers)]
        return functools.reduce(tf.data.Dataset.concatenate, parts)
