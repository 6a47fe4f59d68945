"""Lists a folder of images: class/*.jpg, or train/, validation/ and test/ with classes below."""

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from tfopt.data.decode import EXTENSIONS

_log = logging.getLogger(__name__)
_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation"}
_SPLITS |= {"test": "test"}
_LAYOUT = (
    "Expected one sub-folder of images for each class, or `train` (with `validation` and `test` if you "
    "have them) with such sub-folders inside."
)


@dataclass
class Listing:
    """The files of one split: paths as bytes, the class of each, and files that cannot be images."""

    paths: list[bytes] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def label_array(self) -> np.ndarray:
        """Labels as int64 [files]."""
        return np.asarray(self.labels, np.int64)


def list_folder(directory: str) -> tuple[dict[str, Listing], tuple[str, ...]]:
    """Finds splits, classes and files, in an order that does not depend on the file system.

    Names that begin with a dot are ignored. Symbolic links are followed, each folder once. Memory:
    about 150 bytes a file; no file is opened.

    Returns:
        Split name to `Listing` ("train" alone if the folder has no splits), and the class names.

    Raises:
        ValueError: if there are no class folders or no images, fewer than two classes, a class without
            images, or a split with a class that training does not have.
    """
    folders = _subfolders(directory)
    split_of = {folder: _SPLITS.get(folder.lower()) for folder in folders}
    if "train" in split_of.values() and None not in split_of.values():
        roots = {str(split): os.path.join(directory, folder) for folder, split in split_of.items()}
        if len(roots) < len(folders):
            raise ValueError(f"The folder {directory!r} has two folders for one split: {folders}.")
    else:
        roots = {"train": directory}
    names = tuple(_subfolders(roots["train"]))
    _warn_of_twins(names)
    listings = {split: _list_split(root, names) for split, root in roots.items()}
    _check(directory, names, listings)
    return listings, names


def _warn_of_twins(names: tuple[str, ...]) -> None:
    counts = Counter(unicodedata.normalize("NFC", name).casefold() for name in names)
    twins = [name for name in names if counts[unicodedata.normalize("NFC", name).casefold()] > 1]
    if twins:
        _log.warning("classes whose names differ in case or in the form of an accent only: %s", twins)


def _list_split(root: str, names: tuple[str, ...]) -> Listing:
    unknown = sorted(set(_subfolders(root)) - set(names))
    if unknown:
        raise ValueError(f"The folder {root!r} has classes that training does not have: {unknown}.")
    listing = Listing()
    for label, name in enumerate(names):
        for path in walk_files(os.path.join(root, name)):
            if path.lower().endswith(EXTENSIONS):
                listing.paths.append(os.fsencode(path))
                listing.labels.append(label)
            else:
                listing.foreign.append(path)
    return listing


def walk_files(root: str) -> Iterator[str]:
    """Every visible file below `root`, sorted, following symbolic links without running in circles."""
    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield os.path.join(folder, name)


def split_and_class(directory: str, path: str) -> tuple[str, str]:
    """The split ("train" if the folder has none) and the class of a file below the folder."""
    parts = os.path.relpath(path, directory).split(os.sep)
    split = _SPLITS.get(parts[0].lower()) if len(parts) > 2 else None
    return (split, parts[1]) if split else ("train", parts[0])


def _subfolders(directory: str) -> list[str]:
    if not os.path.isdir(directory):
        return []
    with os.scandir(directory) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _check(directory: str, names: tuple[str, ...], listings: dict[str, Listing]) -> None:
    if not any(listing.paths or listing.foreign for listing in listings.values()):
        raise ValueError(f"The folder {directory!r} contains no images in class folders. {_LAYOUT}")
    if len(names) < 2:
        raise ValueError(
            f"The folder {directory!r} has one class only: {list(names)}; a classifier needs two. {_LAYOUT}"
        )
    check_no_empty_class(listings["train"].labels, listings["train"].foreign, names)


def check_no_empty_class(labels: list[int], bad: list[str], names: tuple[str, ...]) -> None:
    """Refuses a class without images, unless its files are bad and will be named one by one."""
    present = set(labels)
    for label, name in enumerate(names):
        if label not in present and not any(f"{os.sep}{name}{os.sep}" in path for path in bad):
            raise ValueError(f"The class folder {name!r} contains no images. Add some or remove the folder.")
