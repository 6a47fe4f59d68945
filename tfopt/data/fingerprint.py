"""Tells whether a data set is still the one that it was."""

from __future__ import annotations  # TensorFlow is not imported for the signatures

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfopt.data.class_balance import Rebalanced
from tfopt.data.parquet import Encoded
from tfopt.data.random_access import Files, InMemory, OnDisk, RandomAccess, random_access_of
from tfopt.data.shards import Shards
from tfopt.data.stream import RecordFiles, stream_of

if TYPE_CHECKING:
    import tensorflow as tf
else:
    from tfopt._lazy import tensorflow as tf


_BLOCK = 2**24  # bytes read at a time
_SAMPLED = 64  # files whose content counts in any case: unpacked archives give all files one time


def fingerprint(splits: Mapping[str, tf.data.Dataset], described: Sequence[Any], content: bool) -> str:
    """Hashes what the splits were made from; see `ImageDataset.fingerprint`.

    Args:
        splits: Datasets by name.
        described: What belongs to the identity besides, of types whose `repr` is their value.
        content: Whether files are read, or recognized by their size and time.
    """
    sources = {name: random_access_of(split) or stream_of(split) for name, split in splits.items()}
    digest = hashlib.blake2b(repr((list(sources), described)).encode(), digest_size=16)
    root = _common_folder(list(sources.values()))
    for source in sources.values():
        if isinstance(source, RandomAccess):
            _add_random_access(digest, source, root, content)
        elif isinstance(source, RecordFiles):
            _add_files(digest, [os.fsencode(path) for path in source.paths.numpy()], root, content)
            _add_values(digest, source.skipped, source.taken)
        else:
            digest.update(repr((len(source), source.targets)).encode())
    return digest.hexdigest()


def _add_random_access(digest: Any, source: RandomAccess, root: bytes, content: bool) -> None:
    while isinstance(source, Rebalanced):
        digest.update(repr((source.wanted.tolist(), source.seed, source.redraw)).encode())
        source = source.base
    _add_values(digest, *source.targets)
    if isinstance(source, Files):
        digest.update(repr((source.image_size, source.crop_to_aspect_ratio)).encode())
        _add_files(digest, source.paths, root, content)
    elif isinstance(source, Shards):
        digest.update(repr((source.digest, source.image_size, source.crop_to_aspect_ratio)).encode())
        _add_values(digest, source.files, source.starts)
    elif isinstance(source, Encoded):
        for index in range(len(source)):
            digest.update(source.content(index))
    elif isinstance(source, InMemory):
        _add_values(digest, source.pixels)
    elif isinstance(source, OnDisk):
        _add_values(digest, source.images)


def _add_values(digest: Any, *arrays: np.ndarray) -> None:
    for values in arrays:
        digest.update(repr((values.shape, values.dtype.str)).encode())
        rows = max(_BLOCK // max(values[:1].nbytes, 1), 1)  # a memory-mapped file is not read at once
        for start in range(0, len(values), rows):
            digest.update(np.ascontiguousarray(values[start : start + rows]).data)


def _add_files(digest: Any, paths: Sequence[bytes], root: bytes, content: bool) -> None:
    step = 1 if content else max(len(paths) // _SAMPLED, 1)
    for place, path in enumerate(paths):
        relative = os.path.relpath(path, root)
        try:
            about = os.stat(path)
        except OSError as error:  # a missing file is for the reader to report
            digest.update(repr((relative, error.errno)).encode())
            continue
        digest.update(repr((relative, about.st_size, None if content else about.st_mtime_ns)).encode())
        if place % step == 0:
            with open(path, "rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)


def _common_folder(sources: Sequence[Any]) -> bytes:
    """The folder that all files share, so that paths do not depend on where it lies."""
    paths: set[bytes] = set()
    for source in sources:
        while isinstance(source, Rebalanced):
            source = source.base
        if isinstance(source, Files):
            paths.update(os.path.dirname(os.path.abspath(path)) for path in source.paths)
        elif isinstance(source, RecordFiles):
            paths.update(os.path.dirname(os.path.abspath(path)) for path in source.paths.numpy())
    return os.path.commonpath(paths) if paths else b""
