"""Finds pictures that lie in several splits, or in several classes of one data set."""

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from tfopt._checks import check_instance
from tfopt.data.class_balance import Rebalanced
from tfopt.data.dataset import ImageDataset
from tfopt.data.decode import BadImageError
from tfopt.data.duplicates import DECODED, hash_of, same_pictures, thumbnail_of
from tfopt.data.random_access import EncodedImages, RandomAccess, random_access_of

_SHOWN = 3
_THUMBNAILS = 4096  # held at a time, of those that are compared
_TOGETHER = 4096  # images whose hashes are made at a time


@final
@dataclass
class Leaks:
    """What `find_leaks` found; true if there is something, and `str` of it is one or two sentences.

    Attributes:
        groups: Pictures in more than one split: the places of each, "split: path" or "split: number".
        conflicts: Pictures with different labels: the places of each.
        counts: For each split but train, how many of its images are in another split too.
        shares: The same as shares of the split.
    """

    groups: list[list[str]] = field(default_factory=list)
    conflicts: list[list[str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.groups or self.conflicts)

    def __str__(self) -> str:
        parts = [
            f"{count} images of {split} ({self.shares[split]:.1%}) are in another split too"
            for split, count in self.counts.items()
            if count
        ]
        text = "; ".join(parts) + f", such as {self.groups[0][:_SHOWN]}. " if parts else ""
        if parts:
            text += "Accuracy on them measures memory, not what was learned. "
        if self.conflicts:
            example = self.conflicts[0][:_SHOWN]
            text += f"{len(self.conflicts)} pictures have different labels, such as {example}."
        return text.strip() or "no picture is in two splits"


def find_leaks(images: ImageDataset) -> Leaks:
    """Looks for the same picture in several splits, and with several labels.

    Pictures are recognized when they are saved in another format, compressed again or resized (see
    `tfopt.data.duplicates`). Every image is read once, at 16 x 16 pixels; of `ImageDataset.resized` that
    is 20,000 images a second on a core. Memory: 16 bytes an image. Splits that can only be read from
    their beginning (large sets of TFDS) are left out.

    Args:
        images: What `tfopt.data.load` returns, resized or not.

    Example:
        >>> leaks = tfopt.data.find_leaks(data)
        >>> leaks.counts
        {'validation': 0, 'test': 3}
    """
    check_instance("images", images, ImageDataset)
    sources = {name: random_access_of(split) for name, split in images.splits().items()}
    readable = {name: _base(source) for name, source in sources.items() if source is not None}
    places = _Places({name: len(source) for name, source in readable.items()})

    @functools.lru_cache(_THUMBNAILS)
    def thumbnail(number: int) -> np.ndarray:
        name, index = places[number]
        return _thumbnail(readable[name], index)

    hashes: np.ndarray = np.empty((len(places), 16), np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(places), _TOGETHER):  # all at once would be a kilobyte for each image
            numbers = range(start, min(start + _TOGETHER, len(places)))
            hashes[start : numbers.stop] = list(
                pool.map(lambda number: hash_of(_thumbnail(*_of(readable, places[number]))), numbers)
            )
    groups = same_pictures(hashes, thumbnail)
    found = Leaks(counts={name: 0 for name in readable if name != "train"})
    for group in groups:
        members = [places[number] for number in group]
        labels = {readable[name].labels[index].tobytes() for name, index in members}
        texts = [_text(name, readable[name], index) for name, index in members]
        if len(labels) > 1:
            found.conflicts.append(texts)
        if len({name for name, _ in members}) > 1:
            found.groups.append(texts)
            for name, _ in members:
                if name != "train":
                    found.counts[name] += 1
    found.shares = {name: count / len(readable[name]) for name, count in found.counts.items()}
    return found


def _base(source: RandomAccess) -> RandomAccess:
    """Without the repetitions of a balanced split."""
    return _base(source.base) if isinstance(source, Rebalanced) else source


@final
class _Places:
    """(split, index) of the images of all splits, numbered one after the other."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self._names, self._ends = list(sizes), np.cumsum([0, *sizes.values()])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> tuple[str, int]:
        split = int(np.searchsorted(self._ends, number, side="right")) - 1
        return self._names[split], number - int(self._ends[split])


def _of(readable: dict[str, RandomAccess], place: tuple[str, int]) -> tuple[RandomAccess, int]:
    name, index = place
    return readable[name], index


def _thumbnail(source: Any, index: int) -> np.ndarray:
    if not isinstance(source, EncodedImages):
        return thumbnail_of(source.array(index))
    try:
        return thumbnail_of(source.decoded(index, DECODED, False))
    except BadImageError:  # which the run itself will name; here it is like no other
        return np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def _text(name: str, source: RandomAccess, index: int) -> str:
    return f"{name}: {source.path(index) or index}"
