"""Examples that are read in the order of their files, for data that is too large for a cache.

A stream has no access by index, but the order of an epoch is still a pure function of (seed, epoch): the
files are permuted, several of them are interleaved, and a window of records is shuffled. Augmentation depends
on the index of an example in the stored order, so it does not change with the shuffling.
"""

from __future__ import annotations  # TensorFlow is not imported for the signatures

import abc
import copy
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from tfopt.data.decode import resize, three_channels
from tfopt.data.masks import mask_spec, resized
from tfopt.data.python_call import call_python

if TYPE_CHECKING:
    import tensorflow as tf
else:
    from tfopt._lazy import tensorflow as tf


_ATTRIBUTE = "_tfopt_stream"
_WINDOW_BYTES = 2**28
_USUAL_BYTES = 100_000  # about the mean size of an ImageNet photograph
_FILES_AT_ONCE = 16


class Stream(abc.ABC):
    """Numbered records, and how to decode an example from one.

    Attributes:
        image_size: (height, width) to which examples are resized; None keeps their own sizes.
        targets: Specification of the label, then of the weight if the examples have weights.
    """

    def __init__(self, count: int, targets: Sequence[tf.TensorSpec]) -> None:
        self.count, self.targets = count, tuple(targets)
        self.image_size: tuple[int, int] | None = None
        self.crop_to_aspect_ratio = False

    def __len__(self) -> int:
        return self.count

    def sized(self, image_size: tuple[int, int], crop_to_aspect_ratio: bool) -> Stream:
        """The same examples, resized to `image_size`."""
        other = copy.copy(self)
        other.image_size, other.crop_to_aspect_ratio = image_size, crop_to_aspect_ratio
        return other

    @abc.abstractmethod
    def stored(self, mix: Any) -> tf.data.Dataset:
        """(index, record) in the stored order if `mix` is None, else shuffled by seeds `mix` (int64 [2])."""

    @abc.abstractmethod
    def read(self, record: Any) -> tuple[tf.Tensor, ...]:
        """Decodes a record: uint8 image [height, width, 3], then the targets."""

    @abc.abstractmethod
    def record_bytes(self) -> int:
        """Approximate bytes of a record in memory."""

    def shuffled(self, seed: int, epoch: tf.Tensor) -> tf.data.Dataset:
        """(index, record) in the order of an epoch."""
        # `shuffle` mixes in the graph's seed, which `keras.utils.set_random_seed` sets. The order must not
        # depend on it, so it is fixed here. 0 would mean "no seed".
        tf.compat.v1.get_default_graph().seed = 1
        window = min(max(_WINDOW_BYTES // self.record_bytes(), 1), self.count)
        records = self.stored(tf.stack([tf.constant(seed % 2**63, tf.int64), epoch]))
        shuffle_seed = seed % 2**31 * 1_000_003 + epoch
        return records.shuffle(window, seed=shuffle_seed, reshuffle_each_iteration=False)

    def as_dataset(self) -> tf.data.Dataset:
        """Unbatched (image, label[, weight]) in the stored order; `pipeline` recognizes and shuffles it."""
        dataset = self.stored(None).map(lambda _, record: self.read(record), tf.data.AUTOTUNE)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(self.count))
        setattr(dataset, _ATTRIBUTE, self)
        return dataset

    def _resized(self, image: tf.Tensor) -> tf.Tensor:
        size = self.image_size
        if size is None or tuple(image.shape) == (*size, 3):
            return image

        def resized(pixels: np.ndarray) -> np.ndarray:
            return resize(three_channels(pixels), size, self.crop_to_aspect_ratio)

        return tf.ensure_shape(call_python(resized, [image], tf.uint8), (*size, 3))


def target_specs(dataset: tf.data.Dataset, mask_size: tuple[int, int] | None = None) -> list[tf.TensorSpec]:
    """Specifications of label and weight: an integer label becomes int64, everything else float32.

    With `mask_size`, the label is a mask that will be resized to it.
    """
    specs = [
        tf.TensorSpec(spec.shape, tf.int64 if spec.dtype.is_integer and not place else tf.float32)
        for place, spec in enumerate(dataset.element_spec[1:])
    ]
    return specs if mask_size is None else [mask_spec(dataset.element_spec[1], mask_size), *specs[1:]]


def stream_of(dataset: tf.data.Dataset) -> Stream:
    """The stream behind a dataset of `as_dataset`; any other dataset is wrapped in one."""
    return getattr(dataset, _ATTRIBUTE, None) or Elements(dataset)


@final
class Elements(Stream):
    """A stream over any (image, label[, weight]) dataset of known cardinality; shuffles resized images.

    With `masks`, labels are resized with their images, and the stream needs a size.
    """

    def __init__(self, dataset: tf.data.Dataset, masks: bool = False) -> None:
        super().__init__(int(dataset.cardinality()), target_specs(dataset))
        self.dataset, self.masks = dataset, masks

    def sized(self, image_size: tuple[int, int], crop_to_aspect_ratio: bool) -> Stream:
        """Resizes masks, too."""
        other = super().sized(image_size, crop_to_aspect_ratio)
        other.targets = tuple(target_specs(self.dataset, image_size if self.masks else None))
        return other

    def stored(self, mix: Any) -> tf.data.Dataset:
        """In the order of the dataset; `mix` has no effect."""

        def example(image: tf.Tensor, *targets: tf.Tensor) -> tuple[tf.Tensor, ...]:
            cast = [tf.cast(value, spec.dtype) for value, spec in zip(targets, self.targets)]
            if self.masks:
                cast[0] = resized(targets[0], image, self.targets[0], self.crop_to_aspect_ratio)
            return self._resized(image), *cast

        return self.dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE).enumerate()

    def read(self, record: Any) -> tuple[tf.Tensor, ...]:
        """Returns the record, which is an example already."""
        return record

    def record_bytes(self) -> int:
        """Bytes of a resized image and its mask."""
        height, width = self.image_size or (1, 1)
        label = self.targets[0]
        return height * width * 3 + (math.prod(label.shape) * label.dtype.size if self.masks else 0)


@final
class RecordFiles(Stream):
    """A stream over parts of TFRecord files; shuffles encoded records, which are smaller than images.

    Args:
        files: (path, records to skip at the start, records to read) of each file.
        parse: Decodes a record to (uint8 image, int64 label).
        record_bytes: Mean size of a record in bytes, or 0 if unknown.
    """

    def __init__(self, files: Sequence[tuple[str, int, int]], parse: Callable, record_bytes: int) -> None:
        paths, skipped, taken = zip(*files)
        super().__init__(sum(taken), [tf.TensorSpec((), tf.int64)])
        self.paths, self.parse = tf.constant(paths), parse
        self.skipped, self.taken = np.asarray(skipped, np.int64), np.asarray(taken, np.int64)
        self._record_bytes = record_bytes or _USUAL_BYTES

    def stored(self, mix: Any) -> tf.data.Dataset:
        """One file after the other if `mix` is None, else files in shuffled order, interleaved."""
        last = len(self.taken) - 1
        files = tf.data.Dataset.range(last + 1)
        if mix is None or last == 0:
            return files.flat_map(self._open)
        shuffle = tf.random.experimental.index_shuffle
        files = files.map(lambda place: shuffle(place, mix, tf.constant(last, tf.int64)))
        options: dict[str, Any] = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
        return files.interleave(self._open, cycle_length=min(_FILES_AT_ONCE, last + 1), **options)

    def read(self, record: Any) -> tuple[tf.Tensor, ...]:
        """Decodes and resizes."""
        image, *targets = self.parse(record)
        return self._resized(image), *targets

    def record_bytes(self) -> int:
        """The mean."""
        return self._record_bytes

    def _open(self, number: tf.Tensor) -> tf.data.Dataset:
        taken = tf.gather(self.taken, number)
        first = tf.gather(np.cumsum(self.taken) - self.taken, number)
        records = tf.data.TFRecordDataset(tf.gather(self.paths, number))
        records = records.skip(tf.gather(self.skipped, number)).take(taken)
        return tf.data.Dataset.zip(tf.data.Dataset.range(first, first + taken), records)
