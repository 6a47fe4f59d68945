"""`prepare`: a folder of images becomes TFRecord files in random order, checked and resized once."""

from __future__ import annotations  # TensorFlow is not imported for the signatures

import dataclasses
import hashlib
import io
import json
import os
import pathlib
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, final

import numpy as np
import simplejpeg
from PIL import Image

from tfopt._checks import check_choice, check_integer, message
from tfopt._files import OwnedFolder, check_output, replacing, write_text
from tfopt._surroundings import visible_cpus
from tfopt.data.dataset import ImageDataset, image_dataset
from tfopt.data.decode import resize
from tfopt.data.loading import Examples, read_examples
from tfopt.data.random_access import Files, RandomAccess
from tfopt.data.record_files import is_json, record_writer, written_before
from tfopt.data.shards import FORMAT, INDEX, PLAN, check_of, hash_of, length_of, place_of_image

if TYPE_CHECKING:
    import tensorflow as tf
else:
    from tfopt._lazy import tensorflow as tf


QUALITY = 95  # of JPEG files that are made smaller
_DRAWN = {"validation": 0.15, "test": 0.15}  # as `load` draws splits that the data lacks
_TOGETHER = 256  # encoded images in memory


@final
@dataclasses.dataclass(frozen=True)
class Prepared:
    """What `prepare` wrote.

    Attributes:
        path: The folder, for `load`.
        counts: Images by split.
        shards: Files.
        bytes: Of all files.
        seconds: That this call took.
        written: Bytes that it wrote; what an interrupted call has left is kept.
    """

    path: pathlib.Path
    counts: dict[str, int]
    shards: int
    bytes: int
    seconds: float
    written: int

    def __str__(self) -> str:
        images = ", ".join(f"{count:,} {split}" for split, count in self.counts.items())
        rate = f"{self.written / 1e6 / max(self.seconds, 1e-9):,.1f} MB/s"
        kept = (
            f", {(self.bytes - self.written) / 1e6:,.1f} MB of it before" if self.written < self.bytes else ""
        )
        return f"{self.path}: {images} in {self.shards} files, {self.bytes / 1e6:,.1f} MB{kept}; {rate}"


def prepare(
    source: Any,
    output: str | os.PathLike[str],
    *,
    image_size: int | None = None,
    examples_per_shard: int = 2048,
    seed: int = 0,
    on_bad_image: str = "raise",
    task: str | None = None,
    image_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
    on_image: Callable[[int], None] = lambda count: None,
) -> Prepared:
    """Writes images and labels to TFRecord files, which are faster to read and to copy than small files.

    Each image is decoded once, so that damaged files are found here and not after hours of training. The
    order in the files is random, and an index keeps the place of each image, so that `load` reads them in any
    order: batches are those of the same images in a folder. A call that was interrupted goes on where it was.

    Args:
        source: What `load` takes: a folder, a table, arrays.
        output: Folder for the files. Copied to a bucket, `load("gs://bucket/folder")` reads them there.
        image_size: Images whose shorter side is longer than this are made smaller, so that it has as many
            pixels; None keeps all as they are. JPEG files stay JPEG, others become PNG.
        examples_per_shard: Images in a file, >= 1.
        seed: Of the splits that the source lacks, and of the order.
        on_bad_image: "raise", or "skip" to leave out files that are no readable images.
        task: As in `load`.
        image_column: As in `load`.
        label_column: As in `load`.
        on_image: Called with the number of images that were written, or found to be there already.

    Raises:
        ValueError: If the source is one that is in such files already.
        FileExistsError: If `output` holds something else, or files of other images or options.
        BadImageError: If a file cannot be decoded; it names the file.

    Example:
        >>> print(tfopt.data.prepare("photos/", "shards/", image_size=256))
        >>> data = tfopt.data.load("shards/")
    """
    check_integer("examples_per_shard", examples_per_shard, minimum=1)
    check_integer("seed", seed, minimum=0)
    check_choice("on_bad_image", on_bad_image, ("raise", "skip"))
    if image_size is not None:
        check_integer("image_size", image_size, minimum=8)
    path = pathlib.Path(output).expanduser()
    check_output(path, source)
    columns = {"image_column": image_column, "label_column": label_column}
    found = read_examples(source, _DRAWN, seed, on_bad_image, task=task, columns=columns)
    if isinstance(found, ImageDataset) or not isinstance(found, Examples):
        fix = "`load` reads it as it is."
        raise ValueError(message("source", "a folder, a table or arrays, not a set of TFDS", source, fix))
    started = time.perf_counter()
    options = {"image_size": image_size, "examples_per_shard": examples_per_shard, "seed": seed}
    data = image_dataset(found.splits, found.names, **found.about)
    folder = _folder(path, {"data": data.fingerprint(), **options})
    try:
        splits: dict[str, list[dict[str, Any]]] = {}
        written = 0
        for split in data.class_counts:
            examples = found.splits[split]
            splits[split] = []
            for name, rows in _shards(split, len(examples), examples_per_shard, seed):
                about, new = _shard(path / name, examples, rows, image_size, folder)
                notes = hash_of((path / f"{name}.json").read_bytes())
                splits[split].append({"file": name, **about, "notes": notes})
                written += new
                on_image(len(rows))
        index = {
            "format": FORMAT,
            "task": data.task,
            "class_names": list(data.class_names),
            "class_counts": data.class_counts,
            "skipped": list(data.skipped),
            "options": options,
            "splits": splits,
        }
        folder.record([INDEX])
        write_text(path / INDEX, json.dumps({**index, "check": check_of(index)}, indent=1))
    finally:
        folder.release()
    files = [shard for shards in splits.values() for shard in shards]
    counts = {split: sum(shard["examples"] for shard in shards) for split, shards in splits.items()}
    size = sum(shard["bytes"] for shard in files)
    return Prepared(path, counts, len(files), size, time.perf_counter() - started, written)


def _folder(path: pathlib.Path, identity: dict[str, Any]) -> OwnedFolder:
    """The output folder, locked, which is new or holds what a call with the same identity has left."""
    folder, plan = OwnedFolder(path), path / PLAN
    text = json.dumps(identity, indent=1)
    if not folder.is_empty():
        before = plan.read_text(encoding="utf-8", errors="replace") if plan.is_file() else None
        if before is not None and not is_json(before):
            fix = "Delete that folder, or choose another `output`."
            raise FileExistsError(f"{str(plan)!r} is damaged, so that nobody knows what is prepared. {fix}")
        if before != text:
            reason = "holds other files" if before is None else "holds files of other images or options"
            fix = "Choose another `output`, or delete that folder."
            raise FileExistsError(f"`output` {str(path)!r} {reason}. {fix}")
    folder.lock()
    folder.record([PLAN])
    write_text(plan, text)
    return folder


def _shards(split: str, count: int, most: int, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Name and rows of each file of a split: all rows once, in random order, files of about equal size."""
    parts = np.array_split(np.random.default_rng(seed).permutation(count), -(-count // most))
    for number, rows in enumerate(parts):
        yield f"{split}-{number:05}-of-{len(parts):05}.tfrecord", rows


def _shard(
    path: pathlib.Path, examples: RandomAccess, rows: np.ndarray, side: int | None, folder: OwnedFolder
) -> tuple[dict[str, Any], int]:
    """What the index says of one file, and the bytes written: 0 if it is complete already."""
    places = pathlib.Path(f"{path}.json")
    if about := written_before(path, places, examples.labels[rows].tolist()):
        return about, 0
    folder.record([path.name, places.name])
    starts, sizes, sums, digest, before = [], [], [], hashlib.blake2b(digest_size=16), 0
    with replacing(path) as partial, record_writer(partial) as write:
        for image, label in _encoded(examples, rows, side):
            record = _record(image, label)
            starts.append(place_of_image(record, image, before))
            sizes.append(len(image))
            sums.append(zlib.crc32(image))
            before += length_of(record)
            digest.update(record)
            write(record)
    about = {"examples": len(rows), "bytes": before, "digest": digest.hexdigest()}
    weights = None if examples.weights is None else examples.weights[rows].tolist()
    kept = {
        "starts": starts,
        "sizes": sizes,
        "sums": sums,
        "labels": examples.labels[rows].tolist(),
        "weights": weights,
    }
    write_text(places, json.dumps({"about": about, **kept}))  # last: its presence says that all is there
    return about, before


def _encoded(
    examples: RandomAccess, rows: np.ndarray, side: int | None
) -> Iterator[tuple[bytes, np.ndarray]]:
    """Encoded images and their labels, decoded in parallel, some at a time."""
    with ThreadPoolExecutor(visible_cpus()) as pool:
        for start in range(0, len(rows), _TOGETHER):
            part = rows[start : start + _TOGETHER]
            images = pool.map(lambda row: encoded(examples, int(row), side), part)
            yield from zip(images, examples.labels[part])


def encoded(examples: RandomAccess, row: int, side: int | None) -> bytes:
    """One image as the bytes of a file: those that it has, if it need not be made smaller.

    Args:
        examples: Where it is.
        row: Its number.
        side: Pixels of the shorter side that it may have, or None.
    """
    pixels = examples.array(row)  # decoded in any case: what cannot be read is found here
    content = _content(examples, row)
    shorter = min(pixels.shape[:2])
    is_small = side is None or shorter <= side
    if is_small and content:
        return content
    if not is_small:
        pixels = resize(pixels, tuple(max(1, round(length * side / shorter)) for length in pixels.shape[:2]))
    if content[:2] == b"\xff\xd8":
        return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), QUALITY, "RGB", "444")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _content(examples: RandomAccess, row: int) -> bytes:
    """The bytes of the file of an image; none if it has none, or they say too little about its pixels."""
    if isinstance(examples, Files):
        if examples.grey_bits is not None:  # the other files say how bright white is
            return b""
        return pathlib.Path(os.fsdecode(examples.paths[row])).read_bytes()
    content = getattr(examples, "content", None)
    return content(row) if content else b""


def _record(image: bytes, label: np.ndarray) -> bytes:
    """An example in the usual form: its encoded image, and its label or labels."""
    feature = tf.train.Feature
    is_class = np.ndim(label) == 0
    values: Any = (
        feature(int64_list=tf.train.Int64List(value=[int(label)]))
        if is_class
        else feature(float_list=tf.train.FloatList(value=np.asarray(label, float)))
    )
    features = {"image/encoded": feature(bytes_list=tf.train.BytesList(value=[image])), "image/label": values}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
