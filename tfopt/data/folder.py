"""Lists a folder of images: class/*.jpg, or train/, validation/ and test/ with classes below."""

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from tfopt.data.layout import LAYOUT, find_layout
from tfopt.data.targets import check_names
from tfopt.data.walk import Walk

_SHOWN = 10  # names in a message


@dataclass
class Listing:
    """The files of one split: paths as bytes, the class of each, and files that cannot be images."""

    paths: list[bytes] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def label_array(self) -> np.ndarray:
        """Labels as int64 [files]."""
        return np.asarray(self.labels, np.int64)


@dataclass
class Folder:
    """A listed folder: files and root of each split, class names, and sentences about what was decided."""

    splits: dict[str, Listing]
    roots: dict[str, str]
    class_names: tuple[str, ...]
    notes: list[str]


def list_folder(directory: str) -> Folder:
    """Finds splits, classes and files, in an order that does not depend on the file system.

    Names that begin with a dot and junk of systems are passed over, companions of images (texts, XML) are
    too; both are counted in the notes. Symbolic links are followed, each folder once. Files are opened
    only if their name does not say whether they are images. Memory: about 150 bytes a file.

    Raises:
        ValueError: If there are no class folders or no images, fewer than two classes, a class without
            images, a split with a class that training does not have, a link that puts the images of one
            class into another, or an arrangement that is none of images with classes.
    """
    walk = Walk()
    layout = find_layout(directory, walk)
    train = layout.roots["train"]
    names = tuple(walk.subfolders(train)) if os.path.isdir(train) else ()
    listings = {split: _list_split(root, names, walk) for split, root in layout.roots.items()}
    _refuse_mixed_classes(walk, layout.roots)
    _check(directory, names, listings)
    notes = [*layout.notes, *_twins(names), *_notes(walk, listings, names, train)]
    return Folder(listings, layout.roots, check_names(names), notes)


def _list_split(root: str, names: tuple[str, ...], walk: Walk) -> Listing:
    unknown = sorted(set(walk.subfolders(root) if os.path.isdir(root) else ()) - set(names))
    if unknown:
        raise ValueError(
            f"The folder {root!r} has classes that training does not have: {unknown}. Add images of them to "
            "the training split, or move these folders elsewhere."
        )
    listing = Listing()
    for label, name in enumerate(names):
        folder = os.path.join(root, name)
        for path, image in walk.files(folder) if os.path.isdir(folder) else ():
            if image:
                listing.paths.append(os.fsencode(path))
                listing.labels.append(label)
            else:
                listing.foreign.append(path)
    return listing


def _refuse_mixed_classes(walk: Walk, roots: dict[str, str]) -> None:
    for path, other in walk.shared:
        if place_of(path, roots)[1] != place_of(other, roots)[1]:
            raise ValueError(
                f"{path!r} and {other!r} are one folder because of a symbolic link, but lie in different "
                "classes. Remove the link."
            )


def place_of(path: str, roots: dict[str, str]) -> tuple[str, str]:
    """The split and the class of a folder or file."""
    for split, root in sorted(roots.items(), key=lambda item: -len(item[1])):
        if path.startswith(root + os.sep):
            return split, os.path.relpath(path, root).split(os.sep)[0]
    return "train", ""


def _twins(names: tuple[str, ...]) -> list[str]:
    counts = Counter(unicodedata.normalize("NFC", name).casefold() for name in names)
    twins = [name for name in names if counts[unicodedata.normalize("NFC", name).casefold()] > 1]
    return [f"classes whose names differ in case or in the form of an accent only: {twins}"] if twins else []


def _notes(walk: Walk, listings: dict[str, Listing], names: tuple[str, ...], train: str) -> list[str]:
    notes = []
    with os.scandir(train) as entries:
        loose = sum(bool(walk.is_image(entry.path)) for entry in entries if entry.is_file())
    if loose:
        notes.append(f"passed over {loose} images in {train!r} that lie in no class folder")
    if junk := walk.passed_over:
        kinds = ", ".join(f"{count} {kind}" for kind, count in junk.most_common(_SHOWN))
        notes.append(f"passed over {junk.total()} files or folders that are no images: {kinds}")
    if walk.links_back:
        notes.append(f"passed over links to folders that were listed already: {walk.links_back[:_SHOWN]}")
    if walk.shared:
        path, other = walk.shared[0]
        notes.append(f"splits share images: {path!r} and {other!r} are one folder because of a link")
    for split, listing in listings.items():
        counts = np.bincount(listing.label_array(), minlength=len(names))
        absent = [name for name, count in zip(names, counts) if count == 0]
        single = [name for name, count in zip(names, counts) if count == 1]
        if absent and not listing.foreign:
            notes.append(f"{split} has no images of {_some(absent)}")
        if single and split == "train":
            notes.append(f"train has one image only of {_some(single)}")
    return notes


def _some(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown


def _check(directory: str, names: tuple[str, ...], listings: dict[str, Listing]) -> None:
    if not any(listing.paths or listing.foreign for listing in listings.values()):
        raise ValueError(f"The folder {directory!r} contains no images in class folders. {LAYOUT}")
    if len(names) < 2:
        raise ValueError(
            f"The folder {directory!r} has one class only: {list(names)}; a classifier needs two. {LAYOUT}"
        )
    check_no_empty_class(listings["train"].labels, listings["train"].foreign, names)


def check_no_empty_class(labels: list[int], bad: list[str], names: tuple[str, ...]) -> None:
    """Refuses a class without images, unless its files are bad and will be named one by one."""
    present = set(labels)
    for label, name in enumerate(names):
        if label not in present and not any(f"{os.sep}{name}{os.sep}" in path for path in bad):
            raise ValueError(f"The class folder {name!r} contains no images. Add some or remove the folder.")
