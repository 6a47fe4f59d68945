"""Reads, changes and batches the examples of an epoch, for `pipeline`."""

import abc
import functools
from collections.abc import Sequence
from typing import Any, final

import tensorflow as tf

from tfopt.data.access import RandomAccess
from tfopt.data.augment import Augment
from tfopt.data.order import Order
from tfopt.data.stream import Stream


def make_reader(
    source: RandomAccess | Stream, order: Order, augment: Augment | None, classes: int | None
) -> "Reader":
    """The reader for a kind of source."""
    kind = StreamReader if isinstance(source, Stream) else IndexReader
    return kind(source, order, augment, classes)


class Reader(abc.ABC):
    """The examples of an epoch, in its order.

    Args:
        source: The examples, at one size.
        order: Their order and the size of the batches.
        augment: Changes of the images, or None.
        classes: Number of classes, for mixing.
    """

    def __init__(self, source: Any, order: Order, augment: Augment | None, classes: int | None) -> None:
        self.source, self.order, self.augment, self.classes = source, order, augment, classes

    def epoch(self, epoch: tf.Tensor, first_batch: tf.Tensor) -> tf.data.Dataset:
        """The batches of an epoch; zeros in front of `first_batch`."""
        size = self.order.batch_size
        examples = self.examples(epoch, first_batch * size)
        return self.mixed(examples.batch(size, drop_remainder=self.order.drop_remainder))

    @abc.abstractmethod
    def examples(self, epoch: tf.Tensor, first: tf.Tensor) -> tf.data.Dataset:
        """(image, label, epoch, index) in the order of the epoch; zeros in front of `first`."""

    def mixed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """What the model gets of batches of `examples`."""

        def mix(images: tf.Tensor, labels: tf.Tensor, epoch: tf.Tensor, index: tf.Tensor) -> Any:
            if self.augment is None or self.classes is None or not self.augment.mixes:
                return images, labels
            where = {"seed": self.order.seed, "epoch": epoch, "index": index}
            return self.augment.batch(images, labels, classes=self.classes, **where)

        return batches.map(mix, num_parallel_calls=tf.data.AUTOTUNE)

    def _changed(self, image: tf.Tensor, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        if self.augment is None:
            return tf.cast(image, tf.float32)
        return self.augment.image(image, seed=self.order.seed, epoch=epoch, index=index)


@final
class IndexReader(Reader):
    """Of examples that can be read in any order."""

    def epoch(self, epoch: tf.Tensor, first_batch: tf.Tensor) -> tf.data.Dataset:
        """Reads whole batches where nothing is to be done for each image alone."""
        if self.augment is not None or not self.source.reads_batches:
            return super().epoch(epoch, first_batch)
        size = self.order.batch_size
        places = tf.data.Dataset.range(self.order.length).batch(size, self.order.drop_remainder)
        return self.mixed(self._read(places, epoch, first_batch * size))

    def examples(self, epoch: tf.Tensor, first: tf.Tensor) -> tf.data.Dataset:
        """Reads each place of the epoch."""
        return self._read(tf.data.Dataset.range(self.order.length), epoch, first)

    def _read(self, places: tf.data.Dataset, epoch: tf.Tensor, first: tf.Tensor) -> tf.data.Dataset:
        """Of one place, or of the places of a batch, each."""
        labels = tf.constant(self.source.labels)

        def read(place: tf.Tensor) -> Any:
            index = self.order.index(place, epoch)

            def example() -> tuple[tf.Tensor, tf.Tensor]:
                image = self.source.image(self.source.locate(index, epoch))
                return self._changed(image, epoch, index), tf.gather(labels, index)

            def nothing() -> tuple[tf.Tensor, tf.Tensor]:
                shape = tf.concat([tf.shape(index), [*self.source.image_size, 3]], 0)
                return tf.zeros(shape), tf.zeros_like(tf.gather(labels, index))

            return *tf.cond(tf.reduce_all(place < first), nothing, example), epoch, index

        return places.map(read, num_parallel_calls=tf.data.AUTOTUNE)


@final
class StreamReader(Reader):
    """Of examples that are read as they are stored; what other workers train on is not decoded."""

    def examples(self, epoch: tf.Tensor, first: tf.Tensor) -> tf.data.Dataset:
        """Runs through the records in front of `first` without decoding them."""
        order, label = self.order, self.source.label
        records = self.source.shuffled(order.seed, epoch) if order.shuffle else self.source.stored(None)
        if order.workers > 1:
            records = records.enumerate().filter(lambda place, _: order.is_mine(place))
            records = records.map(lambda _, record: record)

        def read(place: tf.Tensor, record: Any) -> Any:
            index, content = record

            def example() -> tuple[tf.Tensor, tf.Tensor]:
                image, own_label = self.source.read(content)
                return self._changed(image, epoch, index), own_label

            def nothing() -> tuple[tf.Tensor, tf.Tensor]:
                return tf.zeros([*self.source.image_size, 3]), tf.zeros(label.shape, label.dtype)

            return *tf.cond(place < first, nothing, example), epoch, index

        return records.take(order.length).enumerate().map(read, num_parallel_calls=tf.data.AUTOTUNE)


@final
class ProgressiveReader:
    """Epochs whose images have another size from some epoch on; order and augmentation stay the same.

    Args:
        readers: One for each size, in the order of their epochs.
        starts: The first epoch of each; the first is 0.
    """

    def __init__(self, readers: Sequence[Reader], starts: Sequence[int]) -> None:
        self.readers, self.starts = readers, starts

    def epoch(self, epoch: tf.Tensor, first_batch: tf.Tensor) -> tf.data.Dataset:
        """All sizes one after the other, of which all but one are empty."""
        phase = tf.reduce_sum(tf.cast(epoch >= tf.constant(self.starts, tf.int64), tf.int64)) - 1

        def batches(number: int, reader: Reader) -> tf.data.Dataset:
            times = tf.data.Dataset.range(tf.cast(phase == number, tf.int64))
            return times.flat_map(lambda _: reader.epoch(epoch, first_batch))

        parts = [batches(number, reader) for number, reader in enumerate(self.readers)]
        return functools.reduce(tf.data.Dataset.concatenate, parts)
