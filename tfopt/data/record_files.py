"""TFRecord files: written with errors that name the disk, and checked against what was noted of them."""

from __future__ import annotations  # TensorFlow is not imported for the signatures

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf
else:
    from tfopt._lazy import tensorflow as tf

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LENGTH, _CHECK = 8, 4  # bytes of the length of a record, and of each of its two checksums


@contextlib.contextmanager
def record_writer(path: pathlib.Path) -> Iterator[Callable[[bytes], None]]:
    """Yields a function that appends a record to a new file.

    Raises:
        OSError: If the file cannot be written; TensorFlow has error classes of its own.
    """
    try:
        with tf.io.TFRecordWriter(str(path)) as writer:
            yield writer.write
    except tf.errors.OpError as error:
        text = str(error.message)
        number = next((number for number in _FULL if os.strerror(number) in text), errno.EIO)
        raise OSError(number, os.strerror(number), str(path)) from error


def written_before(path: pathlib.Path, places: pathlib.Path, labels: list[Any]) -> dict[str, Any] | None:
    """What was noted of a file that is complete; None if it has to be written (again).

    Args:
        path: The file of records. It is read: damage need not change its size.
        places: The file of notes.
        labels: Those that it must have.
    """
    try:
        found = json.loads(places.read_text(encoding="utf-8"))
        about, images = found["about"], [found[name] for name in ("starts", "sizes", "sums")]
        is_whole = found["labels"] == labels and about["examples"] == len(labels)
        if not is_whole or about["bytes"] != path.stat().st_size or digest_of(path) != about["digest"]:
            return None
        with open(path, "rb") as file:
            for start, size, check in zip(*images, strict=True):
                file.seek(start)
                if zlib.crc32(file.read(size)) != check:
                    return None
        return about if len(images[0]) == len(labels) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def digest_of(path: pathlib.Path) -> str:
    """The hash of all records of a file, as the index has it."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while head := file.read(_LENGTH + _CHECK):
            size = int.from_bytes(head[:_LENGTH], "little")
            if size > os.fstat(file.fileno()).st_size:
                return ""
            digest.update(file.read(size))
            file.read(_CHECK)
    return digest.hexdigest()


def is_json(text: str) -> bool:
    """Whether a text is JSON."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
