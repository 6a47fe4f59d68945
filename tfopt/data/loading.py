"""`load`: a folder, the embedded digits, a TFDS name or arrays become an `ImageDataset`."""

import logging
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from tfopt._checks import check_choice, check_integer, check_number, message
from tfopt.data.arrays import from_arrays
from tfopt.data.bit_depth import grey_bits
from tfopt.data.dataset import ImageDataset, image_dataset
from tfopt.data.decode import BadImageError, decode
from tfopt.data.folder import Listing, check_no_empty_class, list_folder
from tfopt.data.labeled_files import from_table
from tfopt.data.parquet import Encoded, from_parquet, parquet_files
from tfopt.data.random_access import Files, InMemory, RandomAccess
from tfopt.data.shards import Shards, from_shards, shard_index
from tfopt.data.split import strata, stratified_split
from tfopt.data.table import ENDINGS, Table, is_frame, read_frame, read_table
from tfopt.data.targets import check_task
from tfopt.data.tfds import from_prepared, from_tfds, prepared_folder

_DIGITS = pathlib.Path(__file__).with_name("digits.npz")
_logger = logging.getLogger(__name__)
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")


class Examples(NamedTuple):
    """Splits that can be read in any order, names of the classes, and other attributes of `ImageDataset`."""

    splits: dict[str, RandomAccess]
    names: tuple[str, ...]
    about: dict[str, Any]


def load(
    source: Any,
    *,
    validation_split: float = 0.15,
    test_split: float = 0.15,
    seed: int = 0,
    on_bad_image: str = "raise",
    class_names: tuple[str, ...] | None = None,
    data_dir: str | None = None,
    task: str | None = None,
    image_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
    split_column: str | None = None,
    weight_column: str | None = None,
    separator: str | None = None,
) -> ImageDataset:
    """Loads images with classes and divides them into train, validation and test.

    Splits that the source has are kept. Those it lacks are taken from train, stratified by class and
    reproducible from the seed (for TFDS: consecutive slices of train). Images stay files until they are
    needed; `ImageDataset.resized` or `pipeline` decode them.

    Args:
        source: One of

            - a folder with one sub-folder of images for each class, or with `train`, and `validation`
              and `test` if they exist, with such sub-folders inside;
            - a CSV or TSV file, or a data frame of pandas: a column of image files, one or several of labels,
              and if wanted a column of splits and one of sample weights;
            - a folder that `tfopt.data.prepare` wrote, here or in a bucket ("gs://bucket/folder");
            - a folder that TensorFlow Datasets prepared (with `dataset_info.json`), or Parquet files of
              encoded images and labels, as `datasets` of Hugging Face saves them (with `pyarrow`);
            - "digits": 1,797 handwritten digits that tfopt brings, 8x8, gray, 10 classes;
            - a name of TensorFlow Datasets, "tf_flowers", with a slice if wanted, "cifar10/train[:10%]";
            - arrays (x, y) or (x, y, sample_weights): images [examples, height, width, 1 or 3] with pixels
              in [0, 255] and integer labels [examples]; zeros and ones [examples, classes] with
              task="multilabel"; numbers [examples] or [examples, targets] with task="regression"; or
              {"train": (x, y), "validation": (x, y), "test": (x, y)}.
        validation_split: Share of the images for validation, in [0, 1), if the source has no such split.
        test_split: Share of the images for test, in [0, 1), if the source has no such split.
        seed: Integer >= 0 that decides the splits.
        on_bad_image: "raise" reports a file that is not a readable image when it is read, by name;
            "skip" reads every file once now and leaves the bad ones out (`ImageDataset.skipped`).
        class_names: Names, and order, of the labels of arrays and tables; "0", "1", ... for arrays and sorted
            for tables by default.
        data_dir: Where TFDS keeps its files; what the paths in a table are relative to, by default the
            folder of the table.
        task: "classification" (one class per image), "multilabel" (any number of labels) or "regression"
            (numbers). None takes what the labels suggest: numbers with decimals, or whole numbers of many
            values, are a regression; in a table `|`, `;` or `,` between labels means several labels.
        image_column: Column of a table with the image files; None finds it by usual names and content. The
            same holds for the next three. `ImageDataset.notes` says what was found.
        label_column: Column with the labels, or several: zeros and ones, or numbers.
        split_column: Column with "train", "validation" and "test", or other usual names of them.
        weight_column: Column with sample weights.
        separator: What separates several labels in a cell; None finds `|`, `;` or `,`.

    Raises:
        ValueError: If the source does not exist, has no images, has one class only or a class without
            images; the message names the place.

    Example:
        >>> data = tfopt.data.load("digits")
        >>> data.class_counts["test"]
        [27, 27, 27, 27, 27, 27, 27, 27, 26, 27]
    """
    fractions = {
        "validation": check_number("validation_split", validation_split, minimum=0, maximum=1),
        "test": check_number("test_split", test_split, minimum=0, maximum=1),
    }
    if sum(fractions.values()) >= 1:
        raise ValueError(message("validation_split + test_split", "below 1", sum(fractions.values())))
    check_integer("seed", seed, minimum=0)
    check_choice("on_bad_image", on_bad_image, ("raise", "skip"))
    check_task(task)
    columns: dict[str, Any] = {
        "image_column": image_column,
        "label_column": label_column,
        "split_column": split_column,
    }
    columns |= {"weight_column": weight_column, "separator": separator}
    options: dict[str, Any] = {
        "class_names": class_names,
        "data_dir": data_dir,
        "task": task,
        "columns": columns,
    }
    found = read_examples(source, fractions, seed, on_bad_image, **options)
    return (
        found if isinstance(found, ImageDataset) else image_dataset(found.splits, found.names, **found.about)
    )


def read_examples(
    source: Any,
    fractions: dict[str, float],
    seed: int,
    on_bad_image: str,
    *,
    class_names: tuple[str, ...] | None = None,
    data_dir: str | None = None,
    task: str | None = None,
    columns: Mapping[str, Any] | None = None,
) -> Examples | ImageDataset:
    """What `load` makes its datasets from, read without TensorFlow; a dataset if the source is of TFDS.

    Args:
        source: As in `load`, like the rest.
        fractions: Shares of the "validation" and "test" splits where the source lacks them.
        seed: Of the splits.
        on_bad_image: "raise" or "skip".
        class_names: Names of classes.
        data_dir: Of TFDS, or of the paths in a table.
        task: "classification", "multilabel", "regression" or None.
        columns: `image_column`, `label_column`, `split_column`, `weight_column` and `separator` by name.
    """
    if isinstance(source, (tuple, list, Mapping)):
        arrays, names, task = from_arrays(source, class_names, task)
        about = {"task": task, "source": _described(arrays)}
        return Examples(_complete(arrays, fractions, seed, _take_arrays), names, about)
    if (table := _table(source, data_dir)) is not None:
        skip = on_bad_image == "skip"
        listed, names, about = from_table(
            table, task=task, class_names=class_names, skip=skip, **(columns or {})
        )
        _log_notes(table.name, about["notes"])
        return Examples(_complete(listed, fractions, seed, _take_files), names, about)
    if not isinstance(source, (str, os.PathLike)):
        expected = "a folder, a CSV file, 'digits', a TFDS name, arrays or a data frame"
        raise TypeError(message("source", expected, source))
    name = os.path.expanduser(os.fspath(source))
    if given := [option for option, value in (columns or {}).items() if value]:
        raise ValueError(message("source", f"a CSV or TSV file or a data frame, as {given} are given", name))
    if index := shard_index(name):
        shards, names, about = from_shards(name, index)
        return Examples(_complete(shards, fractions, seed, Shards.taken), names, about)
    if files := parquet_files(name):
        encoded, names, about = from_parquet(name, files, class_names, task)
        _log_notes(name, about["notes"])
        return Examples(_complete(encoded, fractions, seed, Encoded.taken), names, about)
    if task not in (None, "classification"):
        expected = "None or 'classification' for a source with one class per image"
        raise ValueError(message("task", expected, task, "Pass a CSV file for other labels."))
    if name == "digits":
        splits = _complete({"train": _digits()}, fractions, seed, _take_arrays)
        return Examples(splits, tuple("0123456789"), {"source": name})
    if os.path.isdir(name) and (prepared := prepared_folder(name)):
        return from_prepared(prepared, fractions)
    if os.path.isdir(name):
        return _from_folder(name, fractions, seed, on_bad_image == "skip")
    _refuse_archives(name)
    if os.path.exists(name) or os.path.isabs(name) or name.startswith(".") or name.endswith(("/", "\\")):
        raise ValueError(message("source", "an existing folder", name))
    return from_tfds(name, fractions, data_dir)


def _refuse_archives(name: str) -> None:
    if "://" in name:
        fix = "Download and unpack it first, as with keras.utils.get_file(origin=URL, extract=True)."
        raise ValueError(message("source", "a folder or file on this machine", name, fix))
    if os.path.isfile(name) and name.lower().endswith(_ARCHIVES):
        fix = "Unpack it first, as with shutil.unpack_archive(file, folder), and pass the folder."
        raise ValueError(message("source", "a folder, not an archive", name, fix))


def _digits() -> InMemory:
    """The test set of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, UCI, CC BY 4.0).

    In the order of scikit-learn's `load_digits`, with 17 levels of gray. The package holds the file, so
    that the main job can be tried without scikit-learn, which is an extra, and without a network.
    """
    with np.load(_DIGITS, allow_pickle=False) as file:
        images, targets = file["images"], file["labels"]
    pixels = np.rint(images * (255 / 16)).astype(np.uint8)
    return InMemory(np.repeat(pixels[..., None], 3, axis=-1), targets.astype(np.int64))


def _described(arrays: Mapping[str, InMemory]) -> str:
    shapes = (f"{name} {split.pixels.shape}" for name, split in arrays.items())
    return f"arrays: {', '.join(shapes)}"


def _take_arrays(source: InMemory, indices: np.ndarray) -> InMemory:
    return InMemory(source.pixels[indices], *(values[indices] for values in source.targets))


def _take_files(source: Files, indices: np.ndarray) -> Files:
    weights = None if source.weights is None else source.weights[indices]
    return Files(source.paths[indices], source.labels[indices], weights=weights, grey_bits=source.grey_bits)


def _complete(
    splits: dict[str, Any], fractions: dict[str, float], seed: int, take: Any
) -> dict[str, RandomAccess]:
    """Takes the splits that are missing from train."""
    missing = {name: share for name, share in fractions.items() if name not in splits and share > 0}
    if not missing:
        return splits
    parts = stratified_split(strata(splits["train"].labels), missing, seed)
    return splits | {name: take(splits["train"], indices) for name, indices in parts.items()}


def _from_folder(directory: str, fractions: dict[str, float], seed: int, skip: bool) -> Examples:
    folder = list_folder(directory)
    names, notes, skipped = folder.class_names, folder.notes, []  # type: ignore[var-annotated]
    for split, listing in folder.splits.items():
        if skip:
            skipped += _drop_bad(listing)
            check_no_empty_class(listing.labels if split == "train" else [*range(len(names))], [], names)
        elif listing.foreign:
            raise BadImageError(listing.foreign[0], "it is neither an image nor a text")
    bits = grey_bits([path for listing in folder.splits.values() for path in listing.paths])
    if bits not in (None, 16):
        notes.append(f"pixels of 16-bit files go up to {2**bits - 1} at most: taken for {bits}-bit images")
    splits = {
        split: Files(np.array(listing.paths, object), listing.label_array(), grey_bits=bits)
        for split, listing in folder.splits.items()
    }
    if skipped:
        notes.append(f"left out {len(skipped)} files that are not readable images, such as {skipped[0]!r}")
    _log_notes(directory, notes)
    about = {"skipped": tuple(skipped), "source": directory, "notes": tuple(notes)}
    return Examples(_complete(splits, fractions, seed, _take_files), names, about)


def _table(source: Any, folder: str | None) -> Table | None:
    """The rows of a CSV or TSV file or of a data frame; None for other sources."""
    if is_frame(source):
        return read_frame(source, folder)
    if not isinstance(source, (str, os.PathLike)):
        return None
    path = os.path.expanduser(os.fspath(source))
    return read_table(path, folder) if path.lower().endswith(ENDINGS) and os.path.isfile(path) else None


def _log_notes(name: str, notes: Iterable[str]) -> None:
    for note in notes:
        _logger.warning("%s: %s", name, note)


def _drop_bad(listing: Listing) -> list[str]:
    def readable(path: bytes) -> bool:
        try:
            decode(path, (8, 8))
        except BadImageError:
            return False
        return True

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        good = list(pool.map(readable, listing.paths))
    bad = [os.fsdecode(path) for path, ok in zip(listing.paths, good) if not ok]
    listing.labels = [label for label, ok in zip(listing.labels, good) if ok]
    listing.paths = [path for path, ok in zip(listing.paths, good) if ok]
    return listing.foreign + bad
