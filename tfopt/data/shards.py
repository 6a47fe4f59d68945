"""Image sets in TFRecord files that `prepare` wrote, read in any order by their index."""

from __future__ import annotations  # TensorFlow is not imported for the signatures

import json
import os
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
    ) -> None:
        super().__init__(labels, image_size, weights)
        self.shards, self.files, self.starts, self.sizes = paths, files, starts, sizes
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
            raise BadImageError(path, "the file is shorter than its index says: copy it again")
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
        return Shards(self.shards, *places, self.labels[rows], weights, size, crop, self.digest)


def shard_index(source: str) -> dict[str, Any] | None:
    """The index of a folder that `prepare` wrote, or None for any other source."""
    if "://" in source:
        path = f"{source.rstrip('/')}/{INDEX}"
        try:
            if not tf.io.gfile.exists(path):
                return None
        except tf.errors.UnimplementedError:  # a web address, or a bucket for which TensorFlow has no plugin
            return None
    else:
        path = os.path.join(source, INDEX)
        if not os.path.isfile(path):
            return None
    try:
        with _opened(path) as file:
            found = json.loads(file.read())
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def from_shards(
    source: str, index: dict[str, Any]
) -> tuple[dict[str, Shards], tuple[str, ...], dict[str, Any]]:
    """Splits, names of classes, and `task`, `notes` and `source` of the `ImageDataset`."""
    splits = {split: _split(source, shards) for split, shards in index["splits"].items()}
    about = {"task": index["task"], "source": source, "skipped": tuple(index["skipped"])}
    return splits, tuple(index["class_names"]), about


def _split(source: str, shards: list[dict[str, Any]]) -> Shards:
    paths = [_inside(source, shard["file"]) for shard in shards]
    parts = [read_places(f"{path}.json") for path in paths]
    files: np.ndarray = np.repeat(
        np.arange(len(parts), dtype=np.int32), [len(part["sizes"]) for part in parts]
    )
    starts = np.concatenate([np.asarray(part["starts"], np.int64) for part in parts])
    sizes = np.concatenate([np.asarray(part["sizes"], np.int32) for part in parts])
    labels = np.concatenate([np.asarray(part["labels"]) for part in parts])
    weights = [np.asarray(part["weights"], np.float32) for part in parts if part.get("weights")]
    digest = " ".join(shard["digest"] for shard in shards)
    all_weights = np.concatenate(weights) if weights else None
    return Shards(paths, files, starts, sizes, labels, all_weights, digest=digest)


def read_places(path: str) -> dict[str, Any]:
    """What `prepare` notes of one file: starts, sizes, labels and weights of its images."""
    with _opened(path) as file:
        return json.loads(file.read())


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
