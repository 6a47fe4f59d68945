"""Data sources with random access by index: in memory, in a memory-mapped file, or as image files.

The order of `pipeline` is a pure function of (seed, epoch, position), so it must be able to read example 731
without reading the ones before it. A `tf.data.Dataset` cannot do that in general. A dataset made by
`as_dataset` therefore keeps a reference to its source, which `pipeline` asks for with `random_access_of`.
"""

from __future__ import annotations  # TensorFlow is not imported for the signatures

import abc
import functools
import os
from typing import TYPE_CHECKING, Any, final

import numpy as np

from tfopt.data.decode import decode
from tfopt.data.python_call import call_python

if TYPE_CHECKING:
    import tensorflow as tf
else:
    from tfopt._lazy import tensorflow as tf


_ATTRIBUTE = "_tfopt_random_access"


class RandomAccess(abc.ABC):
    """Images and labels that can be read by index, also inside a tf.function.

    Attributes:
        labels: int64 [examples] for classes; float32 [examples, classes] for soft or several labels;
            float32 [examples, targets] for numbers; masks [examples, height, width, ...] as they are.
        image_size: (height, width) if all images have this size, else None.
        weights: Sample weights, float32 [examples], or None.
        regression: Whether the labels are the targets of a regression.
        paths: File of each example, as `os.fsdecode` takes it, or None if they do not come from files.
    """

    regression = False
    paths: Any = None  # an array of objects

    def __init__(
        self, labels: np.ndarray, image_size: tuple[int, int] | None, weights: np.ndarray | None = None
    ) -> None:
        labels = np.asarray(labels)
        if labels.ndim < 3:
            labels = labels.astype(np.float32 if np.issubdtype(labels.dtype, np.floating) else np.int64)
        self.labels = labels
        self.image_size = image_size
        self.weights = None if weights is None else np.asarray(weights, np.float32)

    def __len__(self) -> int:
        return len(self.labels)

    @abc.abstractmethod
    def image(self, index: tf.Tensor) -> tf.Tensor:
        """uint8 [height, width, 3] of the example with this index."""

    def path(self, index: int) -> str | None:
        """The file that an example was read from, or None."""
        return None if self.paths is None else os.fsdecode(self.paths[int(index)])

    @property
    def targets(self) -> tuple[np.ndarray, ...]:
        """Arrays of what follows the image in an element: the labels, then the weights if there are any."""
        return (self.labels,) if self.weights is None else (self.labels, self.weights)

    def targets_at(self, index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The targets of one index, or of several."""
        return tuple(tf.gather(values, index) for values in self.target_tensors)

    @property
    def target_tensors(self) -> tuple[tf.Tensor, ...]:
        """The targets as tensors, of which masks are made once: as part of a graph they may be too large."""
        return tuple(self._masks if values.ndim > 2 else tf.constant(values) for values in self.targets)

    @functools.cached_property
    def _masks(self) -> tf.Tensor:
        with tf.init_scope():
            tensor = tf.convert_to_tensor(self.labels)
        self.labels = np.asarray(memoryview(tensor))  # so that memory holds them once
        return tensor

    def locate(self, number: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """Index of the example at `number` of an epoch; the identity unless a subclass resamples."""
        return number

    @abc.abstractmethod
    def array(self, index: int) -> np.ndarray:
        """uint8 [height, width, 3] of the example with this index, outside a tf.function."""

    def as_dataset(self) -> tf.data.Dataset:
        """Unbatched (image, label[, weight]) in index order; `pipeline` reads it with random access."""

        @tf.autograph.experimental.do_not_convert  # nothing to convert, and converting would slow `load` down
        def read(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
            index = self.locate(number, tf.constant(0, tf.int64))
            return self.image(index), *self.targets_at(index)

        dataset = tf.data.Dataset.range(len(self)).map(read, num_parallel_calls=tf.data.AUTOTUNE)
        setattr(dataset, _ATTRIBUTE, self)
        return dataset


def random_access_of(dataset: Any) -> RandomAccess | None:
    """The source of a dataset made by `as_dataset`, or None for any other dataset."""
    return getattr(dataset, _ATTRIBUTE, None)


def is_regression(dataset: Any) -> bool:
    """Whether the labels of a dataset are known to be regression targets, not classes or soft labels."""
    source = random_access_of(dataset)
    if source is None:
        return False
    return source.regression or (
        source.labels.dtype == np.float32 and not np.all((source.labels >= 0) & (source.labels <= 1))
    )


@final
class InMemory(RandomAccess):
    """uint8 images [examples, height, width, 3] in one tensor."""

    def __init__(
        self, images: np.ndarray | tf.Tensor, labels: np.ndarray, weights: np.ndarray | None = None
    ) -> None:
        super().__init__(labels, (int(images.shape[1]), int(images.shape[2])), weights)
        array = isinstance(images, np.ndarray) and images.dtype == np.uint8
        self._images = images if array else tf.convert_to_tensor(images, tf.uint8)

    @functools.cached_property
    def images(self) -> tf.Tensor:
        """All images as one tensor, which is made when TensorFlow first needs it."""
        with tf.init_scope():  # not part of the graph that asks first
            self._images = tf.convert_to_tensor(self._images, tf.uint8)
        return self._images

    def image(self, index: tf.Tensor) -> tf.Tensor:
        """One row of the tensor."""
        return tf.gather(self.images, index)

    def batch(self, index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """float32 images and targets of the examples with these indices [batch, 1]; zeros for index -1."""
        rows = functools.partial(tf.gather_nd, indices=index, bad_indices_policy="IGNORE")
        return tf.cast(rows(self.images), tf.float32), *(rows(part) for part in self.target_tensors)

    def array(self, index: int) -> np.ndarray:
        """One row of the tensor."""
        return self.pixels[index]

    @functools.cached_property
    def pixels(self) -> np.ndarray:
        """The images as an array, without a copy. Do not write to it."""
        return np.asarray(memoryview(self._images))  # type: ignore[arg-type]


class PythonAccess(RandomAccess):
    """A source that reads its examples in Python, by `array`."""

    def targets_at(self, index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Reads masks in Python too, one at a time: they may be in a file."""
        if self.labels.ndim < 3:
            return super().targets_at(index)
        mask = call_python(self.mask, [index], tf.as_dtype(self.labels.dtype))
        more = (tf.gather(tf.constant(values), index) for values in self.targets[1:])
        return tf.ensure_shape(mask, self.labels.shape[1:]), *more

    def mask(self, index: int) -> np.ndarray:
        """The mask of the example with this index."""
        return np.array(self.labels[index])

    def image(self, index: tf.Tensor) -> tf.Tensor:
        """Calls `array` from the graph."""
        image = call_python(self.array, [index], tf.uint8)
        height, width = self.image_size or (None, None)
        return tf.ensure_shape(image, (height, width, 3))


@final
class OnDisk(PythonAccess):
    """uint8 images [examples, height, width, 3] in a memory-mapped file."""

    def __init__(self, images: np.memmap, labels: np.ndarray, weights: np.ndarray | None = None) -> None:
        super().__init__(labels, (int(images.shape[1]), int(images.shape[2])), weights)
        self.images = images

    def array(self, index: int) -> np.ndarray:
        """One row of the file."""
        return np.array(self.images[index])


class EncodedImages(PythonAccess):
    """Images that are decoded when they are read, and resized if `image_size` is given."""

    crop_to_aspect_ratio = False

    def array(self, index: int) -> np.ndarray:
        """Decodes one image."""
        return self.decoded(index, self.image_size, self.crop_to_aspect_ratio)

    @abc.abstractmethod
    def decoded(
        self, index: int, size: tuple[int, int] | None, crop: bool, out: np.ndarray | None = None
    ) -> np.ndarray:
        """One image at any size; the arguments are those of `decode`."""

    @abc.abstractmethod
    def sized(self, image_size: tuple[int, int], crop_to_aspect_ratio: bool) -> EncodedImages:
        """The same images, resized to `image_size`."""


@final
class Files(EncodedImages):
    """Image files, decoded when they are read and resized if `image_size` is given.

    `grey_bits` says how many bits the pixels of 16-bit files have; see `decode`.
    """

    def __init__(
        self,
        paths: np.ndarray,
        labels: np.ndarray,
        image_size: tuple[int, int] | None = None,
        crop_to_aspect_ratio: bool = False,
        weights: np.ndarray | None = None,
        grey_bits: int | None = None,
    ) -> None:
        super().__init__(labels, image_size, weights)
        self.grey_bits = grey_bits
        self.paths = np.asarray(paths, object)
        self.crop_to_aspect_ratio = crop_to_aspect_ratio

    def decoded(
        self, index: int, size: tuple[int, int] | None, crop: bool, out: np.ndarray | None = None
    ) -> np.ndarray:
        """One file at any size; the arguments are those of `decode`."""
        return decode(self.paths[int(index)], size, crop, out=out, grey_bits=self.grey_bits)

    def sized(self, image_size: tuple[int, int], crop_to_aspect_ratio: bool) -> Files:
        """The same files, resized to `image_size`."""
        return Files(self.paths, self.labels, image_size, crop_to_aspect_ratio, self.weights, self.grey_bits)
