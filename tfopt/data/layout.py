"""Recognizes how a folder of images is arranged: which folders are splits and which are classes."""

import os
import re
from dataclasses import dataclass
from itertools import islice

from tfopt.data.walk import Walk

LAYOUT = (
    "Expected one sub-folder of images for each class, or `train` (with `validation` and `test` if you "
    "have them) with such sub-folders inside."
)
_WAY_OUT = (
    "If they are classes, put all class folders into one folder named 'train'. If they are splits, put one "
    "sub-folder of images for each class into each."
)
_WORDS = {
    "train": ("train", "training", "trn"),
    "validation": (
        "validation",
        "validate",
        "validating",
        "val",
        "valid",
        "dev",
        "eval",
        "evaluation",
        "publictest",
    ),
    "test": ("test", "testing", "tst", "holdout", "privatetest"),
}
# Names of folders that mean a split only beside a folder for training: as classes they are usual.
_WEAK = ("valid", "dev", "eval", "holdout", "validate", "validating", "evaluation")
_AROUND = "set|sets|data|dataset|datasets|images?|imgs?|img|split|seg|pictures?|pics?|photos?|samples?"
_AROUND += "|folder|files?|full|final|new|jpe?g|png|crops?|cropped|resized|small|original"
_SPLIT = re.compile(rf"^(?:{_AROUND})*?({'|'.join(sum(_WORDS.values(), ()))})(?:{_AROUND})*$")
_SPLIT_OF = {word: split for split, words in _WORDS.items() for word in words}
_INPUTS = {"image", "images", "img", "imgs", "jpegimages", "input", "inputs", "photos", "pictures"}
_MASKS = {"mask", "masks", "label", "labels", "annotation", "annotations", "annot", "gt", "groundtruth"}
_MASKS |= {"segmentation", "segmentationclass", "segmentationobject", "trimaps", "bbox", "boxes"}


@dataclass
class Layout:
    """The folder of each split ("train" alone if there are none), and sentences about what was decided."""

    roots: dict[str, str]
    notes: list[str]


def split_of(name: str) -> str | None:
    """The split that a folder's name means: "Training", "seg_train", "test_images", "val2017"."""
    match = _SPLIT.match(re.sub(r"[\W\d_]+", "", name.lower()))
    return _SPLIT_OF[match[1]] if match else None


def find_layout(directory: str, walk: Walk) -> Layout:
    """Finds the splits of a folder.

    Folders are splits if all that have images are named like splits, one for training among them, and
    hold class folders. A folder around everything is entered.

    Raises:
        ValueError: If names look like splits and the folders do not, if a folder is neither split nor
            class, and for images with masks.
    """
    directory, notes = _entered(directory, walk)
    folders = walk.subfolders(directory) if os.path.isdir(directory) else []
    splits = {name: split for name in folders if (split := split_of(name))}
    with_classes = [name for name in splits if _class_folders(os.path.join(directory, name), walk)]
    if "train" in [splits[name] for name in with_classes]:
        roots = _split_roots(directory, folders, splits, with_classes, walk, notes)
    else:
        _refuse_splits_as_classes(directory, folders, splits, with_classes)
        roots = {"train": directory}
    if os.path.isdir(directory):
        _refuse_masks(roots["train"], walk.subfolders(roots["train"]))
    return Layout(roots, notes)


def _split_roots(
    directory: str,
    folders: list[str],
    splits: dict[str, str],
    with_classes: list[str],
    walk: Walk,
    notes: list[str],
) -> dict[str, str]:
    others = [name for name in folders if name not in splits]
    odd = [name for name in others if _has_images(os.path.join(directory, name))]
    if odd:
        raise ValueError(
            f"The folder {directory!r} has the splits {sorted(splits)}, and beside them {odd}, which are no "
            f"splits. Move {odd} elsewhere, or put a dot in front of the name to have it passed over. "
            f"If all of them are classes, put them into one folder named 'train'."
        )
    flat = [name for name in splits if name not in with_classes]
    if flat:
        raise ValueError(
            f"The folders {flat} in {directory!r} are named like splits but have no class folders, so "
            f"their images have no labels. Sort them into class folders as in {with_classes[0]!r}, move "
            f"{flat} elsewhere, or load a CSV file that names every image and its label."
        )
    if len(set(splits.values())) < len(splits):
        raise ValueError(
            f"The folder {directory!r} has two folders for one split: {dict(sorted(splits.items()))}. "
            "Rename one of them."
        )
    notes += [f"passed over {name!r}, which has no images" for name in others]
    renamed = {name: split for name, split in splits.items() if name.lower() != split}
    if renamed:
        notes.append("splits: " + ", ".join(f"{name!r} is {split}" for name, split in renamed.items()))
    return {split: _inner(os.path.join(directory, name), walk) for name, split in splits.items()}


def _refuse_splits_as_classes(
    directory: str, folders: list[str], splits: dict[str, str], with_classes: list[str]
) -> None:
    strong = [name for name in splits if not re.search("|".join(_WEAK), name.lower())]
    suspicious = with_classes or len(set(splits.values())) > 1
    if not suspicious:  # a class "train" beside "bus" is usual; a class "test" is not
        suspicious = len(splits) < len(folders) and "test" in [splits[name] for name in strong]
    if suspicious:
        raise ValueError(
            f"The folders {sorted(splits)} in {directory!r} are named like splits, but "
            + ("there is none for training. " if with_classes else "have no class folders inside. ")
            + _WAY_OUT
        )


def _refuse_masks(directory: str, folders: list[str]) -> None:
    plain = {name: re.sub(r"[\W\d_]+", "", name.lower()) for name in folders}
    masks = [name for name, text in plain.items() if text in _MASKS]
    if masks and len(masks) < len(folders) and all(text in _INPUTS | _MASKS for text in plain.values()):
        raise ValueError(
            f"The folders {folders} in {directory!r} look like images with masks or annotations, not like "
            "classes: tfopt learns labels of whole images. If they are classes, rename them."
        )


def _entered(directory: str, walk: Walk) -> tuple[str, list[str]]:
    """A folder whose only folder holds the classes or splits is a wrapper, as archives make them."""
    notes: list[str] = []
    while os.path.isdir(directory):
        folders = walk.subfolders(directory)
        if len(folders) != 1 or split_of(folders[0]) or _has_images(directory, deep=False):
            break
        inner = os.path.join(directory, folders[0])
        if _has_images(inner, deep=False) or len(walk.subfolders(inner)) == 0:
            break
        directory = inner
        notes.append(f"the classes are in {directory!r}")
    return directory, notes[-1:]


def _inner(root: str, walk: Walk) -> str:
    """`seg_train/seg_train` is one split."""
    folders = walk.subfolders(root)
    if len(folders) == 1 and split_of(folders[0]) == split_of(os.path.basename(root)):
        return os.path.join(root, folders[0])
    return root


def _class_folders(root: str, walk: Walk) -> list[str]:
    """Folders with images, in a folder that has none itself."""
    if _has_images(root, deep=False):
        return []
    return walk.subfolders(_inner(root, walk))


def _has_images(root: str, deep: bool = True) -> bool:
    files = Walk().files(root)
    if deep:
        return any(image for _, image in files)
    with os.scandir(root) as entries:
        near = (entry.path for entry in islice(entries, 1000) if entry.is_file())
        return any(Walk().is_image(path) for path in near)
