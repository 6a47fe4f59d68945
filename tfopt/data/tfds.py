"""Image data sets by their name in TensorFlow Datasets."""

from __future__ import annotations  # TensorFlow is not imported for the signatures

import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from tfopt._checks import message
from tfopt._optional import require
from tfopt.data.dataset import ImageDataset
from tfopt.data.stream import RecordFiles

if TYPE_CHECKING:
    import tensorflow as tf
else:
    from tfopt._lazy import tensorflow as tf


_COUNT_AT_MOST = 200_000
_PERCENT = re.compile(r"^(?P<name>\w+)(\[((?P<first>\d+)%)?:((?P<last>\d+)%)?\])?$")
_NAME = re.compile(r"^(?P<builder>[\w/:.+-]+?)(/(?P<split>\w+\[[^\]]*\]))?$")


def from_tfds(name: str, fractions: dict[str, float], data_dir: str | None) -> ImageDataset:
    """Loads "name" or "name/train[:10%]" from TFDS; downloads it if it is not on this machine.

    Splits that the data set lacks (or has without labels) are the last part of train, in whole per cent
    of the set, or in examples if the slice is given so. Classes are counted by reading the labels, for
    sets of at most 200,000 examples.
    """
    match = _NAME.match(name)
    if match is None:
        raise ValueError(message("source", "a folder, 'digits' or a TFDS name", name))
    tfds = require("tensorflow_datasets", "`tfopt.data.load` of a TFDS name")
    return _from_builder(tfds, _builder(tfds, match["builder"], data_dir), match["split"], fractions, name)


def prepared_folder(directory: str) -> str | None:
    """The folder in which TFDS left a prepared data set, if `directory` is one or has one version of it."""
    for name in ("", *sorted(os.listdir(directory))):
        if os.path.isfile(os.path.join(directory, name, "dataset_info.json")):
            return os.path.join(directory, name)
    return None


def from_prepared(directory: str, fractions: dict[str, float]) -> ImageDataset:
    """Loads a folder that TFDS prepared, by `tfds.builder_from_directory`: its code is not needed."""
    tfds = require("tensorflow_datasets", "`tfopt.data.load` of a folder that TFDS prepared")
    return _from_builder(tfds, tfds.builder_from_directory(directory), None, fractions, directory)


def _from_builder(
    tfds: Any, builder: Any, split_given: str | None, fractions: dict[str, float], name: str
) -> ImageDataset:
    train = split_given or "train"
    features = builder.info.features
    if not {"image", "label"} <= set(features) or features["label"].num_classes < 2:
        raise ValueError(message("source", "a TFDS data set of images with two classes or more", name))
    splits = {}
    if split_given is None:
        splits = {key: key for key in fractions if key in builder.info.splits and _has_labels(builder, key)}
    missing = {key: share for key, share in fractions.items() if key not in splits}
    splits = _slices(tfds, builder, train, missing) | splits
    datasets, counts = {}, {}
    for split, text in splits.items():
        datasets[split] = _dataset(builder, text)
        if len(datasets[split]) <= _COUNT_AT_MOST:
            counts[split] = _count(tfds, builder, text)
    names = tuple(features["label"].names)
    rest = datasets.get("validation"), datasets.get("test")
    return ImageDataset(datasets["train"], *rest, names, counts, source=name)


def _dataset(builder: Any, split: str) -> tf.data.Dataset:
    """Images and labels; as a `Stream` if they are in TFRecord files."""
    known = split.partition("[")[0] in builder.info.splits
    if not known or builder.info.file_format.value != "tfrecord":
        return builder.as_dataset(split=split).map(_image_and_label, tf.data.AUTOTUNE)
    info = builder.info.splits[split]
    files = [(os.fspath(part.filename), part.skip, part.take) for part in info.file_instructions]

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _image_and_label(builder.info.features.deserialize_example(record))

    whole = builder.info.splits[split.partition("[")[0]]
    return RecordFiles(files, parse, whole.num_bytes // whole.num_examples).as_dataset()


def _image_and_label(example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    image = tf.cast(example["image"], tf.uint8)
    if image.shape[-1] == 1:
        image = tf.image.grayscale_to_rgb(image)
    return image, tf.cast(example["label"], tf.int64)


def _has_labels(builder: Any, split: str) -> bool:
    return all(int(example["label"]) >= 0 for example in builder.as_dataset(split=split).take(1))


def _slices(tfds: Any, builder: Any, train: str, missing: dict[str, float]) -> dict[str, str]:
    """Cuts the missing splits off the end of train."""
    name, first, last, unit = _bounds(tfds, builder, train)
    bounds = {}
    for key, share in reversed(missing.items()):
        size = min(max(round((last - first) * share), 1), last - first - 1) if share > 0 else 0
        if size > 0:
            bounds[key] = f"{name}[{last - size}{unit}:{last}{unit}]"
        last -= size
    return {"train": f"{name}[{first}{unit}:{last}{unit}]"} | bounds


def _bounds(tfds: Any, builder: Any, split: str) -> tuple[str, int, int, str]:
    """Name, first and last of a slice, in per cent if it is given so, else in examples."""
    percent = _PERCENT.match(split)
    if percent:
        return percent["name"], int(percent["first"] or 0), int(percent["last"] or 100), "%"
    cut = tfds.core.ReadInstruction.from_spec(split).to_absolute(builder.info.splits)[0]
    size = builder.info.splits[cut.splitname].num_examples
    return cut.splitname, cut.from_ or 0, size if cut.to is None else cut.to, ""


def _count(tfds: Any, builder: Any, split: str) -> list[int]:
    """Images of each class, without decoding them."""
    stream = builder.as_dataset(split=split, decoders={"image": tfds.decode.SkipDecoding()})
    labels = list(stream.map(lambda example: example["label"]).batch(1024).as_numpy_iterator())
    classes = builder.info.features["label"].num_classes
    return np.bincount(np.concatenate(labels), minlength=classes).tolist()


def _builder(tfds: Any, name: str, data_dir: str | None) -> Any:
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        builder.download_and_prepare()
        return builder
    except tfds.core.registered.DatasetNotFoundError as error:
        expected = "an existing folder, 'digits', a TFDS name or arrays"
        raise ValueError(message("source", expected, name)) from error
    except (OSError, tfds.download.DownloadError) as error:
        raise ValueError(
            f"Cannot download {name!r} with TensorFlow Datasets: {error}. Prepare it on a machine with a "
            "network and pass its folder as `data_dir`."
        ) from error
