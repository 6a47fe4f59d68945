"""Looks through a folder of images for what spoils training: damage, duplicates, leaks between splits."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import final

import numpy as np

from tfopt._checks import check_integer, message
from tfopt.data.decode import BadImageError, check_regular, decode, open_image
from tfopt.data.duplicates import DECODED, hash_of, same_pictures, thumbnail_of
from tfopt.data.folder import list_folder, place_of
from tfopt.data.walk import Walk

_CHUNK = 1024
_SHOWN = 5


@final
@dataclass
class ImageCheck:
    """What `check_images` found; `str` of it is a report to print.

    Attributes:
        files: Number of files looked at.
        unreadable: (path, reason) of files that are no readable images.
        tiny: (path, (width, height)) of images with a side below `min_size`.
        odd_modes: (path, Pillow mode) of images that are not RGB; `load` converts them.
        duplicates: Groups of paths with the same picture: equal files, or saved again in another form.
        leaks: The groups of `duplicates` that lie in more than one split.
        conflicts: The groups of `duplicates` that lie in more than one class.
        layout: Why `load` refuses the folder, or "".
        notes: What `load` decides by itself about the folder.
    """

    files: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    tiny: list[tuple[str, tuple[int, int]]] = field(default_factory=list)
    odd_modes: list[tuple[str, str]] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    leaks: list[list[str]] = field(default_factory=list)
    conflicts: list[list[str]] = field(default_factory=list)
    layout: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there are files and nothing was found that spoils training or its evaluation."""
        return self.files > 0 and not (self.layout or self.unreadable or self.leaks or self.conflicts)

    def __str__(self) -> str:
        parts = [
            ("unreadable", [f"{path!r}: {reason}" for path, reason in self.unreadable]),
            ("the same image in several splits", [repr(group) for group in self.leaks]),
            ("the same image in several classes", [repr(group) for group in self.conflicts]),
            ("groups of files with one picture", [repr(group) for group in self.duplicates]),
            ("tiny", [f"{path!r}: {width} x {height}" for path, (width, height) in self.tiny]),
            ("not RGB (converted when loaded)", [f"{path!r}: {mode}" for path, mode in self.odd_modes]),
        ]
        lines = [f"{self.files} files: {'fine' if self.ok else 'needs attention'}"]
        lines += [f"`load` refuses this folder: {self.layout}"] * bool(self.layout)
        lines += [f"note: {note}" for note in self.notes]
        for title, items in parts:
            if items:
                lines.append(f"{len(items)} {title}")
                lines += [f"    {item}" for item in items[:_SHOWN]]
                lines += [f"    and {len(items) - _SHOWN} more"] * (len(items) > _SHOWN)
        return "\n".join(lines)


def check_images(directory: str, *, min_size: int = 32, progress: bool = False) -> ImageCheck:
    """Reads every file of a folder once, in parallel.

    Duplicates are equal files and pictures that were saved again, in another format, size or quality (see
    `tfopt.data.duplicates`). Memory: about 500 bytes a file.

    Args:
        directory: A folder as `load` takes it.
        min_size: Images with a side below this are called tiny, >= 1.
        progress: Show a progress bar on stderr.

    Raises:
        ValueError: If there is no such folder.

    Example:
        >>> print(check_images("photos"))
    """
    check_integer("min_size", min_size, minimum=1)
    directory = os.path.expanduser(directory)
    if not os.path.isdir(directory):
        raise ValueError(message("directory", "an existing folder", directory))
    found, roots = ImageCheck(), {"train": directory}
    try:
        folder = list_folder(directory)
        roots, found.notes = folder.roots, folder.notes
    except ValueError as error:
        found.layout = str(error)
    looks = list(_looks(_files(directory, roots, found), progress))
    for path, look in looks:
        found.files += 1
        if look.reason:
            found.unreadable.append((path, look.reason))
            continue
        if min(look.size) < min_size:
            found.tiny.append((path, look.size))
        if look.mode != "RGB":
            found.odd_modes.append((path, look.mode))
    good = [(path, look) for path, look in looks if not look.reason]
    found.duplicates = _duplicates(good)
    places = [[place_of(path, roots) for path in group] for group in found.duplicates]
    found.leaks = [g for g, place in zip(found.duplicates, places) if len({split for split, _ in place}) > 1]
    if not found.layout:
        classes = [{name for _, name in place} for place in places]
        found.conflicts = [g for g, names in zip(found.duplicates, classes) if len(names) > 1]
    return found


def _files(directory: str, roots: dict[str, str], found: ImageCheck) -> list[str]:
    """What `load` would read, or everything if it would refuse the folder."""
    tops = [directory] if found.layout else roots.values()
    walk, files = Walk(), []
    for top in tops:
        classes = [top] if found.layout else [os.path.join(top, name) for name in walk.subfolders(top)]
        files += [path for folder in classes for path, _ in walk.files(folder)]
    return files


def _looks(paths: list[str], progress: bool) -> Iterator[tuple[str, "_Look"]]:
    shown: Iterable[str] = paths
    if progress:
        from rich.console import Console
        from rich.progress import track

        shown = track(paths, "Checking images", console=Console(stderr=True))
    remaining = iter(shown)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(islice(remaining, _CHUNK)):
            yield from zip(chunk, pool.map(_look, chunk))


def _duplicates(good: list[tuple[str, "_Look"]]) -> list[list[str]]:
    """Groups of paths with one picture."""
    equal: dict[bytes, list[int]] = {}
    for number, (_, look) in enumerate(good):
        equal.setdefault(look.digest, []).append(number)

    def thumbnail(number: int) -> np.ndarray:
        return thumbnail_of(decode(good[number][0], DECODED))

    hashes = np.frombuffer(b"".join(look.hash for _, look in good), np.uint8).reshape(-1, 16)
    return [
        [good[number][0] for number in group]
        for group in same_pictures(hashes, thumbnail, list(equal.values()))
    ]


@dataclass
class _Look:
    """One file: digest of its content, why it is bad, size, mode and the hash of its picture."""

    digest: bytes
    reason: str = ""
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    hash: bytes = bytes(16)  # an array would take a hundred bytes more for each file


def _look(path: str) -> _Look:
    digest = hashlib.blake2b(digest_size=16)
    try:
        check_regular(path)
        with open(path, "rb") as content:
            while block := content.read(2**20):
                digest.update(block)
        picture = hash_of(thumbnail_of(decode(path, DECODED)))
        with open_image(path) as image:
            return _Look(digest.digest(), "", image.size, image.mode, picture.tobytes())
    except BadImageError as error:
        return _Look(digest.digest(), error.reason)
    except OSError as error:
        return _Look(os.fsencode(path), str(error))
