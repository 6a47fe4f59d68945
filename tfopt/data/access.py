"""Examples that can be read in any order: in memory, on disk, or as image files.

The order of `pipeline` is a pure function of (seed, epoch, position), so it must be able to read example
number 731 without reading the others. tf.data cannot in general; these three can. A dataset made by
`as_dataset` remembers what it was made from, and `pipeline` asks with `random_access_of`.
"""

import abc
import functools
import os
from typing import Any, final

import numpy as np
import tensorflow as tf

from tfopt.data.decode import decode
from tfopt.data.python_call import call_python

_ATTRIBUTE = "_tfopt_random_access"


class RandomAccess(abc.ABC):
    """Images and labels that can be read by number, inside a tf function.

    Attributes:
        labels: int64 [examples], or float32 [examples, classes] if they are soft.
        image_size: (height, width) if all images share it, else None.
    """

    def __init__(self, labels: np.ndarray, image_size: tuple[int, int] | None) -> None:
        soft = np.issubdtype(np.asarray(labels).dtype, np.floating)
        self.labels = np.asarray(labels, np.float32 if soft else np.int64)
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.labels)

    @abc.abstractmethod
    def image(self, index: tf.Tensor) -> tf.Tensor:
        """uint8 [height, width, 3] of the example with this number."""

    def locate(self, number: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """The example that stands for `number` in an epoch."""
        return number

    @abc.abstractmethod
    def array(self, index: int) -> np.ndarray:
        """The same, outside a tf function."""

    def as_dataset(self) -> tf.data.Dataset:
        """Unbatched (image, label) in order, that `pipeline` can read in any order."""
        labels = tf.constant(self.labels)

        @tf.autograph.experimental.do_not_convert  # has nothing to convert, and `load` is quicker
        def read(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return self.image(self.locate(number, tf.constant(0, tf.int64))), tf.gather(labels, number)

        dataset = tf.data.Dataset.range(len(self)).map(read, num_parallel_calls=tf.data.AUTOTUNE)
        setattr(dataset, _ATTRIBUTE, self)
        return dataset


def random_access_of(dataset: Any) -> RandomAccess | None:
    """What a dataset was made from, or None for a dataset that can only be read from its beginning."""
    return getattr(dataset, _ATTRIBUTE, None)


@final
class InMemory(RandomAccess):
    """uint8 images [examples, height, width, 3] in one tensor."""

    def __init__(self, images: np.ndarray | tf.Tensor, labels: np.ndarray) -> None:
        super().__init__(labels, (int(images.shape[1]), int(images.shape[2])))
        self.images = tf.convert_to_tensor(images, tf.uint8)

    def image(self, index: tf.Tensor) -> tf.Tensor:
        """One row of the tensor."""
        return tf.gather(self.images, index)

    @tf.autograph.experimental.do_not_convert  # has nothing to convert
    def batch(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """float32 images and labels of the examples with these numbers [batch, 1], and zeros for -1."""
        rows = functools.partial(tf.gather_nd, indices=index, bad_indices_policy="IGNORE")
        return tf.cast(rows(self.images), tf.float32), rows(tf.constant(self.labels))

    def array(self, index: int) -> np.ndarray:
        """One row of the tensor."""
        return self.images[index].numpy()


class _Python(RandomAccess):
    """Examples that Python code reads."""

    def image(self, index: tf.Tensor) -> tf.Tensor:
        """Calls `array` from the graph."""
        image = call_python(self.array, [index], tf.uint8)
        height, width = self.image_size or (None, None)
        return tf.ensure_shape(image, (height, width, 3))


@final
class OnDisk(_Python):
    """uint8 images [examples, height, width, 3] in a memory-mapped file."""

    def __init__(self, images: np.memmap, labels: np.ndarray) -> None:
        super().__init__(labels, (int(images.shape[1]), int(images.shape[2])))
        self.images = images

    def array(self, index: int) -> np.ndarray:
        """One row of the file."""
        return np.array(self.images[index])


@final
class Files(_Python):
    """Image files, decoded when they are read and resized if `image_size` is given."""

    def __init__(
        self,
        paths: np.ndarray,
        labels: np.ndarray,
        image_size: tuple[int, int] | None = None,
        crop_to_aspect_ratio: bool = False,
    ) -> None:
        super().__init__(labels, image_size)
        self.paths = np.asarray(paths, object)
        self.crop_to_aspect_ratio = crop_to_aspect_ratio

    def array(self, index: int) -> np.ndarray:
        """Decodes one file."""
        return decode(self.paths[int(index)], self.image_size, self.crop_to_aspect_ratio)

    def path(self, index: int) -> str:
        """The name of one file."""
        return os.fsdecode(self.paths[int(index)])
