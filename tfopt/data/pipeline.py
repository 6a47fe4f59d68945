"""`pipeline`: batches in an order, and with an augmentation, that depend on (seed, epoch, index) only.

The order is a permutation computed by `tf.random.experimental.index_shuffle`, so any place of any epoch
can be reached without running through what comes before. The batches carry their position::

    batches = tfopt.data.pipeline(data.train, 32, image_size=224)
    batches.position.set(epoch=3, batch=17)     # what the next iteration yields

Each iteration takes the epoch in `position` and moves it on by one; `fit` iterates once per epoch (and
may look at a first batch before the first epoch, so whoever needs exact epochs sets them in
`on_epoch_begin`, where `fit` has not begun to iterate). The batches in front of `batch` come as zeros,
without reading an image, so that the number of batches stays the same: whoever resumes inside an epoch
lets them pass untrained.
"""

from typing import Any, final

import tensorflow as tf

from tfopt._checks import check_instance, check_integer, message
from tfopt.data.access import RandomAccess
from tfopt.data.augment import Augment
from tfopt.data.cache import cached, check_image_size


@final
class Position:
    """Where the next iteration of a pipeline begins: variables that are read when it does.

    Attributes:
        epoch: int64 variable, the number of the next epoch.
        batch: int64 variable, the first batch of it that is not replaced by zeros.
    """

    def __init__(self, epoch: int = 0) -> None:
        with tf.init_scope(), tf.device("CPU:0"):
            self.epoch = tf.Variable(epoch, dtype=tf.int64, trainable=False)
            self.batch = tf.Variable(0, dtype=tf.int64, trainable=False)

    def set(self, epoch: int, batch: int = 0) -> None:
        """Makes the next iteration begin there."""
        self.epoch.assign(check_integer("epoch", epoch, minimum=0))
        self.batch.assign(check_integer("batch", batch, minimum=0))

    def take(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads the position and moves on to the next epoch (in a tf function)."""
        epoch, batch = self.epoch.read_value(), self.batch.read_value()
        with tf.control_dependencies([epoch, batch]):
            moved = [self.epoch.assign_add(1), self.batch.assign(0)]
        with tf.control_dependencies(moved):
            return tf.identity(epoch), tf.identity(batch)


def pipeline(
    dataset: tf.data.Dataset,
    batch_size: int,
    *,
    image_size: int | tuple[int, int] | None = None,
    augment: Augment | None = None,
    shuffle: bool = True,
    seed: int = 0,
    epochs: int | None = None,
    first_epoch: int = 0,
    cache: str | None = "auto",
    crop_to_aspect_ratio: bool = False,
    classes: int | None = None,
    drop_remainder: bool = False,
    shard: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Batches of float32 images [batch, height, width, 3] in [0, 255] with their labels, for `fit`.

    Reads in parallel, caches after the resize, shuffles differently in each epoch but reproducibly,
    augments, batches and prefetches. The number of batches is known.

    Args:
        dataset: Unbatched (image, label), such as `ImageDataset.train`. One made by `tfopt.data` is read
            in any order; any other is cached first.
        batch_size: Images per batch, >= 1; even if `augment` mixes images.
        image_size: (height, width) or one number. May be left out if all images share a size.
        augment: Changes of the images; None leaves them as they are.
        shuffle: A new order in each epoch; False keeps the order of the dataset.
        seed: Integer >= 0; decides the order and the augmentation.
        epochs: None gives a dataset that yields one epoch at each iteration, each time the next. A number
            gives one finite stream of that many epochs, for `fit(steps_per_epoch=...)` or for reading
            several augmented views.
        first_epoch: Number of the first epoch, >= 0.
        cache: "memory" or "disk" (a temporary file) keep the resized images as uint8; None reads files at
            every access; "auto" takes the first that fits into a quarter of the free memory or half of
            the free disk.
        crop_to_aspect_ratio: Cut the middle of the images instead of stretching them.
        classes: Number of classes; needed if `augment` mixes images.
        drop_remainder: Leave out the last batch if it is smaller.
        shard: (number of this worker, number of workers). Each takes its part of every global batch of
            `batch_size` times the workers; the remainder is left out.

    Returns:
        A `tf.data.Dataset`. With `epochs=None` it has a `position` (see the module's text).

    Raises:
        ValueError: for a value outside the bounds above.
        BadImageError: names a file that cannot be decoded, while caching.

    Example:
        >>> batches = tfopt.data.pipeline(data.train, 32, image_size=32, augment=Augment(shift=0.1))
        >>> model.fit(batches, epochs=10)
    """
    check_integer("batch_size", batch_size, minimum=1)
    check_integer("seed", seed, minimum=0)
    check_integer("first_epoch", first_epoch, minimum=0)
    if augment is not None:
        check_instance("augment", augment, Augment)
        _check_mixing(augment, batch_size, classes)
    source = cached(dataset, _size(dataset, image_size), cache, crop_to_aspect_ratio)
    order = _Order(len(source), batch_size, shuffle, seed, drop_remainder, shard)
    reader = _Reader(source, order, augment, seed, classes)
    if epochs is not None:
        check_integer("epochs", epochs, minimum=1)
        numbers = tf.data.Dataset.range(first_epoch, first_epoch + epochs)
        stream = numbers.flat_map(lambda epoch: reader.epoch(epoch, tf.constant(0, tf.int64)))
        return _finish(stream, order.batches * epochs)
    position = Position(first_epoch)
    stream = tf.data.Dataset.range(1).flat_map(lambda _: reader.epoch(*position.take()))
    batches = _finish(stream, order.batches)
    batches.position = position
    return batches


class _Order:
    """Which example stands at which place of an epoch."""

    def __init__(
        self,
        count: int,
        batch_size: int,
        shuffle: bool,
        seed: int,
        drop_remainder: bool,
        shard: tuple[int, int],
    ) -> None:
        number, workers = shard
        check_integer("shard[1]", workers, minimum=1)
        check_integer("shard[0]", number, minimum=0, maximum=workers - 1)
        self.count, self.batch_size, self.shuffle, self.seed = count, batch_size, shuffle, seed
        self.number, self.workers = number, workers
        whole = count // (batch_size * workers)
        self.drop_remainder = drop_remainder or workers > 1
        self.batches = whole if self.drop_remainder else -(-count // batch_size)
        self.length = whole * batch_size if self.drop_remainder else count
        if self.batches == 0:
            fix = "With drop_remainder or several workers, a batch must be full."
            raise ValueError(message("batch_size", f"at most {count // workers}", batch_size, fix))

    def index(self, place: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """Number of the example at a place of this worker's part of an epoch."""
        batch, row = place // self.batch_size, place % self.batch_size
        place = (batch * self.workers + self.number) * self.batch_size + row
        if not self.shuffle or self.count == 1:
            return place
        seed = tf.stack([tf.constant(self.seed % 2**63, tf.int64), epoch])
        return tf.random.experimental.index_shuffle(place, seed, tf.constant(self.count - 1, tf.int64))


class _Reader:
    """Makes the batches of one epoch."""

    def __init__(
        self, source: RandomAccess, order: _Order, augment: Augment | None, seed: int, classes: int | None
    ) -> None:
        self.source, self.order, self.augment, self.seed = source, order, augment, seed
        self.classes = classes
        self.labels = tf.constant(source.labels)

    def epoch(self, epoch: tf.Tensor, first_batch: tf.Tensor) -> tf.data.Dataset:
        """The batches of this epoch; zeros in front of `first_batch`."""
        first = first_batch * self.order.batch_size

        def example(place: tf.Tensor) -> Any:
            index = self.order.index(place, epoch)
            return *tf.cond(place < first, self._nothing, lambda: self._example(index, epoch)), index

        def batch(images: tf.Tensor, labels: tf.Tensor, index: tf.Tensor) -> Any:
            if self.augment is None or self.classes is None or not self.augment.mixes:
                return images, labels
            where = {"seed": self.seed, "epoch": epoch, "index": index}
            return self.augment.batch(images, labels, classes=self.classes, **where)

        examples = tf.data.Dataset.range(self.order.length).map(example, num_parallel_calls=tf.data.AUTOTUNE)
        batches = examples.batch(self.order.batch_size, drop_remainder=self.order.drop_remainder)
        return batches.map(batch, num_parallel_calls=tf.data.AUTOTUNE)

    def _example(self, index: tf.Tensor, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image, label = self.source.image(index), tf.gather(self.labels, index)
        if self.augment is not None:
            return self.augment.image(image, seed=self.seed, epoch=epoch, index=index), label
        return tf.cast(image, tf.float32), label

    def _nothing(self) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.zeros([*self.source.image_size, 3]), tf.constant(0, tf.int64)


def _finish(batches: tf.data.Dataset, count: int) -> tf.data.Dataset:
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    batches = batches.apply(tf.data.experimental.assert_cardinality(count))
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def _size(dataset: tf.data.Dataset, image_size: Any) -> tuple[int, int]:
    if image_size is not None:
        return check_image_size(image_size)
    shape = dataset.element_spec[0].shape
    if None in shape[:2]:
        raise ValueError(message("image_size", "given, as the images differ in size", image_size))
    return int(shape[0]), int(shape[1])


def _check_mixing(augment: Augment, batch_size: int, classes: int | None) -> None:
    if augment.mixes and batch_size % 2:
        raise ValueError(message("batch_size", "even, as `augment` mixes pairs of images", batch_size))
    if augment.mixes and classes is None:
        raise ValueError(message("classes", "the number of classes, as `augment` mixes labels", classes))
