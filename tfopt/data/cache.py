"""Decodes and resizes every example once, into memory or into a temporary file."""

from __future__ import annotations  # TensorFlow is not imported for the signatures

import functools
import logging
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from tfopt._checks import check_choice, check_integer, message
from tfopt._memory import free_memory
from tfopt.data.class_balance import Rebalanced
from tfopt.data.decode import resize, three_channels
from tfopt.data.masks import resize_mask
from tfopt.data.random_access import EncodedImages, InMemory, OnDisk, RandomAccess, random_access_of
from tfopt.data.stream import Elements, Stream, stream_of, target_specs

if TYPE_CHECKING:
    import tensorflow as tf
else:
    from tfopt._lazy import tensorflow as tf


_logger = logging.getLogger(__name__)
_ALIGNMENT = 64  # bytes
_TOGETHER = 16  # images per task of a thread


def check_image_size(image_size: Any) -> tuple[int, int]:
    """(height, width) from an integer or a pair."""
    if isinstance(image_size, (tuple, list)):
        if len(image_size) != 2:
            raise ValueError(message("image_size", "an integer or (height, width)", image_size))
        height, width = (check_integer("image_size", side, minimum=1) for side in image_size)
        return height, width
    return (check_integer("image_size", image_size, minimum=1),) * 2


def cached(
    dataset: tf.data.Dataset,
    image_size: tuple[int, int],
    cache: str | None = "auto",
    crop_to_aspect_ratio: bool = False,
    directory: str | None = None,
    masks: bool = False,
) -> RandomAccess | Stream:
    """Resizes the examples of an unbatched dataset to one size and caches them, with random access by index.

    Without a cache, only image files keep random access; other datasets become a stream.

    Args:
        dataset: (image, label[, weight]), unbatched and finite.
        image_size: (height, width).
        cache: "memory"; "disk" (a temporary file, removed when it is no longer used); None (decode and
            resize at every access); or "auto": memory if the pixels need less than a quarter of the free
            memory, else disk if they need less than a quarter of the free disk, else None.
        crop_to_aspect_ratio: Crop the center instead of stretching.
        directory: Folder for the file of "disk"; None is the system's temporary folder.
        masks: Whether labels are masks, which are resized with their image (to the nearest pixel).

    Raises:
        ValueError: If the dataset is infinite.
        BadImageError: If a file cannot be decoded; it names the file.
    """
    check_choice("cache", cache, ("auto", "memory", "disk", None))
    source = random_access_of(dataset)
    if isinstance(source, (InMemory, OnDisk)) and source.image_size == image_size and cache in ("auto", None):
        return source
    if isinstance(source, Rebalanced):
        base = cached(source.base.as_dataset(), image_size, cache, crop_to_aspect_ratio, directory)
        return source.over(base) if isinstance(base, RandomAccess) else base
    dataset = dataset if source else _counted(dataset)
    count = int(dataset.cardinality())
    pixels = max(count, 1) * image_size[0] * image_size[1]
    needed = pixels * 3
    if masks:
        label = target_specs(dataset, image_size)[0]
        needed += pixels * math.prod(label.shape[2:]) * label.dtype.size
    if cache == "auto":
        cache = _choose(needed, directory)
        _logger.info("cache=%r for %d images, %.0f MB", cache, count, needed / 1e6)
    if cache is None:
        if isinstance(source, EncodedImages):
            return source.sized(image_size, crop_to_aspect_ratio)
        stream = Elements(dataset, masks=True) if masks else stream_of(dataset)
        return stream.sized(image_size, crop_to_aspect_ratio)
    room = functools.partial(_temporary_file, directory=directory) if cache == "disk" else _aligned
    images, targets = _read(dataset, source, image_size, crop_to_aspect_ratio, room, masks)
    read = OnDisk(images, *targets) if isinstance(images, np.memmap) else InMemory(_shared(images), *targets)
    if isinstance(source, RandomAccess):
        read.paths = source.paths
    return read


def _read(
    dataset: tf.data.Dataset,
    source: RandomAccess | None,
    size: tuple[int, int],
    crop: bool,
    room: Callable[[tuple[int, ...]], Any],
    masks: bool,
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    count = int(dataset.cardinality())
    images = room((count, *size, 3))
    specs = target_specs(dataset, size if masks else None)
    targets = [np.empty((count, *spec.shape), spec.dtype.as_numpy_dtype) for spec in specs[masks:]]
    if masks:  # as large as the images
        shape, dtype = (count, *specs[0].shape), specs[0].dtype
        targets.insert(0, room((*shape, dtype.size)).reshape(-1).view(dtype.as_numpy_dtype).reshape(shape))

    def from_files(files: EncodedImages, start: int) -> None:
        for position in range(start, min(start + _TOGETHER, count)):
            files.decoded(position, size, crop, out=images[position])

    def from_stream(position: int, example: Any) -> None:
        image, *others = example
        if masks:
            others[0] = resize_mask(others[0], image, size, crop)
        images[position] = resize(three_channels(image), size, crop)
        for values, value in zip(targets, others):
            values[position] = value

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if isinstance(source, EncodedImages):
            list(pool.map(functools.partial(from_files, source), range(0, count, _TOGETHER)))
            return images, source.targets
        examples = enumerate(dataset.as_numpy_iterator())
        while chunk := list(islice(examples, _TOGETHER)):
            list(pool.map(from_stream, *zip(*chunk)))
    return images, tuple(targets)


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """An uninitialized uint8 array, aligned so that TensorFlow can use its memory without a copy."""
    size = math.prod(shape)
    memory: np.ndarray = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].reshape(shape)


def _shared(images: np.ndarray) -> tf.Tensor:
    """A tensor on the memory of `_aligned`. A copy would double the memory and add a third to the time."""
    return tf.experimental.dlpack.from_dlpack(images.__dlpack__()) if images.size else tf.constant(images)


def _counted(dataset: tf.data.Dataset) -> tf.data.Dataset:
    cardinality = int(dataset.cardinality())
    if cardinality == tf.data.INFINITE_CARDINALITY:
        fix = "It repeats for ever: pass it before `repeat()`."
        raise ValueError(message("dataset", "a finite dataset", "an infinite one", fix))
    if cardinality == tf.data.UNKNOWN_CARDINALITY:
        count = int(dataset.reduce(np.int64(0), lambda total, *_: total + 1))
        return dataset.apply(tf.data.experimental.assert_cardinality(count))
    return dataset


def _temporary_file(shape: tuple[int, ...], directory: str | None) -> np.memmap:
    size = max(math.prod(shape), 1)
    handle, path = tempfile.mkstemp(prefix="tfopt-", suffix=".uint8", dir=directory)
    try:
        if hasattr(os, "posix_fallocate"):  # otherwise a full disk ends the process by SIGBUS
            os.posix_fallocate(handle, 0, size)
    except OSError as error:
        os.unlink(path)
        fix = "Make room, set TMPDIR to a larger disk, or use cache=None."
        reason = (
            f"cache='disk' needs {size / 1e6:,.0f} MB in {os.path.dirname(path)!r}: {error.strerror}. {fix}"
        )
        raise OSError(error.errno, reason) from error
    finally:
        os.close(handle)
    images = np.memmap(path, np.uint8, "r+", shape=shape)
    if os.name == "posix":  # the kernel frees an unlinked file when the process ends, even by a kill
        os.unlink(path)
    else:
        weakref.finalize(images, os.unlink, path)
    return images


def _choose(needed: int, directory: str | None) -> str | None:
    if needed < free_memory() / 4:
        return "memory"
    folder = directory or tempfile.gettempdir()
    room = shutil.disk_usage(folder).free
    if _limit_of_files() < needed or needed > room / 4:
        return None
    _logger.warning(
        "cache='auto' keeps %.1f GB of resized images in a temporary file in %r (%.1f GB free); cache=None "
        "decodes the images again in each epoch instead",
        *(needed / 1e9, folder, room / 1e9),
    )
    return "disk"


def _limit_of_files() -> float:
    """The largest file, in bytes, that this process may write (`ulimit -f`)."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return math.inf if limit == resource.RLIM_INFINITY else limit
