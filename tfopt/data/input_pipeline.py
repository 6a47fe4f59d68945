"""`pipeline`: batches whose order and augmentation depend on (seed, epoch, index) only.

The order is a permutation computed by `tf.random.experimental.index_shuffle`, so any batch of any epoch can
be reached without reading the ones before it. The batches carry their position::

    batches = tfopt.data.pipeline(data.train, 32, image_size=224)
    batches.position.set(epoch=3, batch=17)     # what the next iteration yields

Each iteration yields the epoch in `position`, then advances it. `fit` may peek at a batch before epoch 0, so
set exact epochs in `on_epoch_begin`. Batches before `position.batch` are zeros and read no image, so the
number of batches stays the same; skip them when you resume inside an epoch.
"""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import tensorflow as tf

from tfopt._checks import check_instance, check_integer, message
from tfopt.data.augment import Augment
from tfopt.data.batching import batch_by_schedule, with_steps_per_epoch
from tfopt.data.cache import cached, check_image_size
from tfopt.data.masks import has_masks
from tfopt.data.moving_labels import check_boxes, check_labels_stay
from tfopt.data.random_access import RandomAccess, is_regression
from tfopt.data.reader import ProgressiveReader, make_reader
from tfopt.data.sampler import Position, Sampler
from tfopt.data.stream import Stream
from tfopt.schedules import BatchSizeSchedule, as_batch_size_schedule

ImageSize: TypeAlias = int | tuple[int, int]


def pipeline(
    dataset: tf.data.Dataset,
    batch_size: int | BatchSizeSchedule,
    *,
    image_size: ImageSize | Mapping[int, ImageSize] | None = None,
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
    boxes: str | Literal[False] | None = None,
    masks: bool | None = None,
) -> tf.data.Dataset:
    """Batches of float32 images [batch, height, width, 3] in [0, 255] with their labels, for `fit`.

    Reads in parallel, caches after the resize, shuffles differently in each epoch but reproducibly,
    augments, batches and prefetches. The number of batches is known.

    Args:
        dataset: Unbatched (image, label) or (image, label, weight), such as `ImageDataset.train`. A label is
            an integer, or a vector: soft or several labels, or targets of a regression. Folders, arrays and
            cached data are shuffled completely. Anything else without a cache (a TFDS name too large for
            one) is streamed: each epoch shuffles the files and a window of 256 MB, reproducibly.
        batch_size: Images per batch, >= 1, or a schedule of `tfopt.schedules` (needs `epochs`; see
            `ramped_batches`). It must be even if `augment` mixes images.
        image_size: (height, width) or one number. Optional if all images have one size. A dict
            {epoch: size}, such as {0: 128, 10: 224}, trains on small images first: the model must take
            images of any size, and XLA compiles once for each size. Each size has its own cache.
        augment: Augmentation of the images; None does not change them.
        shuffle: A new order in each epoch; False keeps the order of the dataset.
        seed: Integer >= 0; decides the order and the augmentation.
        epochs: None gives a dataset that yields one epoch per iteration, each time the next one. A number
            gives one finite stream of that many epochs, for `fit(steps_per_epoch=...)` or to read several
            augmented views.
        first_epoch: Number of the first epoch, >= 0.
        cache: "memory" or "disk" (a temporary file) keep the resized images as uint8; None decodes at every
            access; "auto" takes the first that fits into a quarter of the free memory (of the container, if
            it has a limit) or of the free disk, else None.
        crop_to_aspect_ratio: Crop the center of the images instead of stretching them.
        classes: Number of classes; needed if `augment` mixes images with integer labels.
        drop_remainder: Leave out the last batch if it is smaller.
        shard: (index of this worker, number of workers). A global batch has `batch_size` images of each
            worker; examples that do not fill a global batch are left out.
        boxes: Format of labels that are boxes [4] or [number, 4] and move with the image: "xyxy", "xywh",
            "center_xywh", "yxyx", or these relative to the image, "rel_xyxy" and so on, as in Keras. A moved
            box is the upright one around the corners, cut at the edges. False says that numbers as labels
            are no places in the image. None, with an `augment` that moves pixels, refuses labels that may be
            places: numbers that are no classes, soft labels or several labels.
        masks: Whether labels are masks [height, width] or [height, width, channels] of their images: then
            they are resized and moved with them, each pixel as the nearest one, and keep the type of
            integers. None takes labels for masks that are as high and wide as their image, which the dataset
            must know; True is for images of several sizes. False, with `boxes=False`, says that labels with
            two axes and more are no places in the image.

    Returns:
        A `tf.data.Dataset`. With `epochs=None` it has an attribute `position`: call
        `position.set(epoch, batch)` to choose where the next iteration starts.

    Raises:
        ValueError: If a value is outside the bounds above.
        BadImageError: If a file cannot be decoded while caching; it names the file.

    Example:
        >>> batches = tfopt.data.pipeline(data.train, 32, image_size=32, augment=Augment(shift=0.1))
        >>> model.fit(batches, epochs=10)
    """
    schedule = as_batch_size_schedule(batch_size)
    check_integer("seed", seed, minimum=0)
    check_integer("first_epoch", first_epoch, minimum=0)
    _check_dataset(dataset)
    if augment is not None:
        check_instance("augment", augment, Augment)
    is_mask = has_masks(dataset, masks, boxes)
    if augment is not None:
        if not is_mask:
            check_labels_stay(augment, dataset, boxes, masks)
        _check_mixing(augment, schedule, classes, dataset)
    sizes = _sizes(dataset, image_size)
    sources = [cached(dataset, size, cache, crop_to_aspect_ratio, masks=is_mask) for size in sizes.values()]
    if boxes:
        check_boxes(boxes, dataset, list(sizes.values()), augment)
    count = len(sources[0])
    if count == 0:
        raise ValueError(message("dataset", "with images", "an empty one"))
    if augment is not None and augment.mixes:
        _check_classes(sources[0], classes)
    if isinstance(batch_size, BatchSizeSchedule):
        _check_ramp(schedule, epochs, drop_remainder, shard, sizes)
        schedule.check_sizes(samples=count * (epochs or 1))
        batch_size = 1
    sampler = Sampler(count, batch_size, shuffle, seed, drop_remainder, shard)
    readers = [make_reader(source, sampler, augment, classes, boxes or None, is_mask) for source in sources]
    reader = ProgressiveReader(readers, list(sizes)) if len(readers) > 1 else readers[0]
    if epochs is None:
        position = Position(first_epoch)
        batches = _finish(
            reader.next_epoch(position).apply(tf.data.experimental.assert_cardinality(sampler.batches))
        )
        batches.position, batches.sampler = position, sampler
        return batches
    numbers = tf.data.Dataset.range(first_epoch, first_epoch + check_integer("epochs", epochs, minimum=1))
    if len(schedule.sizes) == 1:
        stream = numbers.flat_map(lambda epoch: reader.epoch(epoch, tf.constant(0, tf.int64)))
        return with_steps_per_epoch(_finish(stream), sampler.batches * epochs, epochs)
    examples = numbers.flat_map(lambda epoch: readers[0].examples(epoch, tf.constant(0, tf.int64)))
    stream = readers[0].mixed(batch_by_schedule(examples, schedule))
    return with_steps_per_epoch(_finish(stream), schedule.total_steps(count * epochs), epochs)


def _finish(batches: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    # Where the iterator of an epoch is dropped, TensorFlow waits for its autotuning thread, which held up the
    # next epoch for up to 19 s. Without autotuning there are as many parallel calls as processor threads.
    options.autotune.enabled = False
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def _sizes(dataset: tf.data.Dataset, image_size: Any) -> dict[int, tuple[int, int]]:
    """First epoch to (height, width)."""
    if isinstance(image_size, Mapping):
        if 0 not in image_size:
            raise ValueError(message("image_size", "a dict with a size for epoch 0", dict(image_size)))
        starts = sorted(check_integer("image_size", epoch, minimum=0) for epoch in image_size)
        return {epoch: check_image_size(image_size[epoch]) for epoch in starts}
    if image_size is not None:
        return {0: check_image_size(image_size)}
    shape = dataset.element_spec[0].shape
    if None in shape[:2]:
        raise ValueError(message("image_size", "given, as the images differ in size", image_size))
    return {0: (int(shape[0]), int(shape[1]))}


def _check_dataset(dataset: Any) -> None:
    check_instance("dataset", dataset, tf.data.Dataset, "Pass a split, such as `data.train`.")
    spec = dataset.element_spec
    tensors = isinstance(spec, tuple) and all(isinstance(part, tf.TensorSpec) for part in spec)
    if not tensors or len(spec) not in (2, 3) or spec[0].shape.rank not in (3, None):
        fix = "Pass it before `batch`; labels in a dictionary are for `dataset.map` after `pipeline`."
        expected = "of single (image [height, width, 3], label) or (image, label, weight)"
        raise ValueError(message("dataset", expected, spec, fix))
    if len(spec) == 3 and spec[2].shape.rank not in (0, None):
        raise ValueError(message("dataset", "with one number as the weight of an example", spec[2]))


def _check_classes(source: RandomAccess | Stream, classes: int | None) -> None:
    """Labels beyond `classes` would be lost in mixing; those of a stream are not known."""
    if not isinstance(source, RandomAccess):
        return
    vectors = source.labels.ndim == 2
    needed = source.labels.shape[1] if vectors else int(source.labels.max()) + 1
    classes = needed if classes is None else classes
    if classes < needed or (vectors and classes > needed):
        raise ValueError(message("classes", f"the number of classes, here {needed}", classes))


def _check_mixing(augment: Augment, schedule: BatchSizeSchedule, classes: int | None, dataset: Any) -> None:
    if not augment.mixes:
        return
    if any(schedule.sizes % 2):
        sizes = schedule.sizes.tolist()
        raise ValueError(message("batch_size", "even, as `augment` mixes pairs of images", sizes))
    label = dataset.element_spec[1]
    if label.shape.rank == 0 and label.dtype.is_integer:
        if classes is None:
            raise ValueError(message("classes", "the number of classes, as `augment` mixes labels", classes))
    elif label.shape.rank != 1:
        expected = "None, as labels that are neither integers nor vectors cannot be mixed"
        name = "cutmix" if augment.mixup is None else "mixup"
        raise ValueError(message(name, expected, getattr(augment, name), f"A label is {label}."))
    if augment.cutmix is not None and is_regression(dataset):
        expected = "None for regression: a part of an image has no part of a number as its target"
        raise ValueError(message("cutmix", expected, augment.cutmix, "`mixup` is possible."))


def _check_ramp(
    schedule: BatchSizeSchedule,
    epochs: int | None,
    drop_remainder: bool,
    shard: tuple[int, int],
    sizes: dict[int, tuple[int, int]],
) -> None:
    if epochs is None:
        fix = "A schedule of batch sizes is one stream for the whole run."
        raise ValueError(message("epochs", "the number of epochs", epochs, fix))
    if drop_remainder or shard[1] > 1:
        expected = "an integer with drop_remainder or several workers"
        raise ValueError(message("batch_size", expected, schedule.sizes.tolist()))
    if len(sizes) > 1:
        expected = "an integer if `image_size` changes, as a batch may lie in two epochs"
        raise ValueError(message("batch_size", expected, schedule.sizes.tolist()))
