"""Image sets in TFRecord files that `prepare` wrote, read in any order by their index."""

from __future__ import annotations  # TensorFlow is not imported for the signatures

import hashlib
import json
import os
import zlib
from typing import TYPE_CHECKING, Any, final

import numpy as np

from tfopt.data.decode import BadImageError, decode_bytes, resize
from tfopt.data.random_access import EncodedImages

if TYPE_CHECKING:
    import tensorflow as tf
else:
    from tfopt._lazy import tensorflow as tf


INDEX = "index.json"
FORMAT = "tfopt shards 1"
PLAN = "prepare.json"  # what `prepare` was asked for, written first; the index is written last
_AGAIN = "copy it again from where it was whole"
_RERUN = "Run the same `tfopt data prepare` again: it writes what is missing or damaged."
_HEAD = 12  # bytes of a TFRecord in front of its content: its length and a checksum


@final
class Shards(EncodedImages):
    """Encoded images inside of TFRecord files.

    Args:
        paths: The files; of another machine such as "gs://bucket/train-00000-of-00010.tfrecord", too.
        files: Number of the file that holds each image, int32 [examples].
        starts: Place of its encoded image in the file, in bytes, int64 [examples].
        sizes: Bytes of its encoded image, int32 [examples].
        labels: As in `RandomAccess`, like the rest.
        weights: Sample weights or None.
        image_size: (height, width) to resize to, or None.
        crop_to_aspect_ratio: Crop the center instead of stretching.
        digest: Hash of all the files, by which `fingerprint` knows them.
        sums: CRC-32 of each encoded image, uint32 [examples], by which damage is noticed that a decoder may
            turn into other pixels; None if the files were written without.
    """

    def __init__(
        self,
        paths: list[str],
        files: np.ndarray,
        starts: np.ndarray,
        sizes: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray | None = None,
        image_size: tuple[int, int] | None = None,
        crop_to_aspect_ratio: bool = False,
        digest: str = "",
        sums: np.ndarray | None = None,
    ) -> None:
        super().__init__(labels, image_size, weights)
        self.shards, self.files, self.starts, self.sizes = paths, files, starts, sizes
        self.sums = sums
        self.crop_to_aspect_ratio, self.digest = crop_to_aspect_ratio, digest

    def content(self, index: int) -> bytes:
        """The encoded image."""
        path = self.shards[self.files[index]]
        with _opened(path) as file:
            file.seek(int(self.starts[index]))
            return file.read(int(self.sizes[index]))

    def decoded(
        self, index: int, size: tuple[int, int] | None, crop: bool, out: np.ndarray | None = None
    ) -> np.ndarray:
        """One image at any size; the arguments are those of `decode`."""
        index = int(index)
        path = self.shards[self.files[index]]
        try:
            content = self.content(index)
        except OSError as error:
            raise BadImageError(path, error.strerror or error) from error
        if len(content) < self.sizes[index]:
            raise BadImageError(path, f"the file is shorter than its index says: {_AGAIN}")
        if self.sums is not None and zlib.crc32(content) != self.sums[index]:
            raise BadImageError(path, f"the bytes of image {index} are not those that were written: {_AGAIN}")
        pixels = decode_bytes(content, f"{path}, image {index}")
        pixels = pixels if size is None else resize(pixels, size, crop)
        if out is not None:
            out[...] = pixels
        return pixels

    def sized(self, image_size: tuple[int, int], crop_to_aspect_ratio: bool) -> Shards:
        """The same images, resized to `image_size`."""
        return self._with(np.arange(len(self)), image_size, crop_to_aspect_ratio)

    def taken(self, indices: np.ndarray) -> Shards:
        """Some of the images."""
        return self._with(indices, self.image_size, self.crop_to_aspect_ratio)

    def _with(self, rows: np.ndarray, size: tuple[int, int] | None, crop: bool) -> Shards:
        weights = None if self.weights is None else self.weights[rows]
        places = self.files[rows], self.starts[rows], self.sizes[rows]
        sums = None if self.sums is None else self.sums[rows]
        return Shards(self.shards, *places, self.labels[rows], weights, size, crop, self.digest, sums)


def shard_index(source: str) -> dict[str, Any] | None:
    """The index of a folder that `prepare` wrote, or None for any other source.

    Raises:
        ValueError: If `prepare` has begun to write the folder, but its index is missing or damaged.
    """
    path = _inside(source, INDEX)
    if not _exists(path):
        if _exists(_inside(source, PLAN)) and not _exists(_inside(source, "train")):
            raise ValueError(f"{source!r} is not complete: `tfopt data prepare` was interrupted. {_RERUN}")
        return None
    try:
        with _opened(path) as file:
            found = json.loads(file.read())
    except ValueError:
        found = None
    if isinstance(found, dict) and found.get("format") == FORMAT:
        if not _is_whole(found):
            raise _damaged(path)
        return found
    if _exists(_inside(source, PLAN)):  # else a file of something else that is called so
        raise _damaged(path)
    return None


def _is_whole(index: dict[str, Any]) -> bool:
    """Whether an index has all that is read of it."""
    kinds = {"task": str, "class_names": list, "skipped": list, "splits": dict}
    if not all(isinstance(index.get(name), kind) for name, kind in kinds.items()):
        return False
    if "check" in index and index["check"] != check_of(index):
        return False
    shards = [shard for split in index["splits"].values() for shard in split]
    fields = {"file": str, "examples": int, "digest": str}
    return all(isinstance(shard.get(name), kind) for shard in shards for name, kind in fields.items())


def _exists(path: str) -> bool:
    if "://" not in path:
        return os.path.exists(path)
    try:
        return tf.io.gfile.exists(path)
    except tf.errors.UnimplementedError:  # a web address, or a bucket for which TensorFlow has no plugin
        return False


def _damaged(path: str) -> ValueError:
    return ValueError(f"{path!r} is damaged. {_RERUN} Or {_AGAIN}.")


def from_shards(
    source: str, index: dict[str, Any]
) -> tuple[dict[str, Shards], tuple[str, ...], dict[str, Any]]:
    """Splits, names of classes, and `task`, `notes` and `source` of the `ImageDataset`."""
    classes = len(index["class_names"])
    splits = {split: _split(source, shards, classes) for split, shards in index["splits"].items()}
    about = {"task": index["task"], "source": source, "skipped": tuple(index["skipped"])}
    return splits, tuple(index["class_names"]), about


def _split(source: str, shards: list[dict[str, Any]], classes: int) -> Shards:
    paths = [_inside(source, shard["file"]) for shard in shards]
    parts = [read_places(f"{path}.json", shard, classes) for path, shard in zip(paths, shards)]
    files: np.ndarray = np.repeat(
        np.arange(len(parts), dtype=np.int32), [len(part["sizes"]) for part in parts]
    )

    def joined(name: str) -> np.ndarray:
        return np.concatenate([part[name] for part in parts])

    def joined_if_noted(name: str) -> np.ndarray | None:
        return joined(name) if all(name in part for part in parts) else None

    digest = " ".join(shard["digest"] for shard in shards)
    places = files, joined("starts"), joined("sizes")
    return Shards(
        paths,
        *places,
        joined("labels"),
        joined_if_noted("weights"),
        digest=digest,
        sums=joined_if_noted("sums"),
    )


_KINDS = {"starts": np.int64, "sizes": np.int32, "weights": np.float32, "sums": np.uint32}


def read_places(path: str, shard: dict[str, Any], classes: int) -> dict[str, np.ndarray]:
    """What `prepare` notes of one file: starts, sizes, labels, and if there are some weights and checksums.

    Args:
        path: The file of notes.
        shard: What the index says of the file that they are about.
        classes: How many there are.

    Raises:
        ValueError: If the notes are damaged.
    """
    with _opened(path) as file:
        content = file.read()
    try:
        found = json.loads(content)
        arrays = {name: np.asarray(found[name], kind) for name, kind in _KINDS.items() if found.get(name)}
        labels = np.asarray(found["labels"])
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise _damaged(path) from error
    counts = {len(values) for values in (labels, *arrays.values())}
    is_class = np.issubdtype(labels.dtype, np.integer) and labels.ndim == 1
    fits = np.issubdtype(labels.dtype, np.number) and not (is_class and labels.max() >= classes)
    is_other = "notes" in shard and shard["notes"] != hash_of(content)
    if is_other or counts != {shard["examples"]} or not {"starts", "sizes"} <= set(arrays) or not fits:
        raise _damaged(path)
    return {**arrays, "labels": labels}


def hash_of(content: bytes) -> str:
    """By which damage is noticed that leaves a text readable."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def check_of(index: dict[str, Any]) -> str:
    """The hash of all that an index says."""
    said = {name: value for name, value in index.items() if name != "check"}
    return hash_of(json.dumps(said, sort_keys=True).encode())


def place_of_image(record: bytes, image: bytes, before: int) -> int:
    """Where an encoded image begins in a file, as a part of a record that follows `before` bytes."""
    return before + _HEAD + record.index(image)


def length_of(record: bytes) -> int:
    """Bytes that a record takes in a TFRecord file."""
    return _HEAD + len(record) + 4


def _inside(source: str, name: str) -> str:
    return f"{source.rstrip('/')}/{name}" if "://" in source else os.path.join(source, name)


def _opened(path: str) -> Any:
    return tf.io.gfile.GFile(path, "rb") if "://" in path else open(path, "rb")
