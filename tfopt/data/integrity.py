"""Looks through a folder of images for what spoils training: damage, duplicates, leaks between splits."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import final

from PIL import Image

from tfopt._checks import check_integer, message
from tfopt.data.decode import BadImageError, check_regular, decode
from tfopt.data.folder import split_and_class, walk_files

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
        duplicates: Groups of paths with the same content.
        leaks: The groups of `duplicates` that lie in more than one split.
        conflicts: The groups of `duplicates` that lie in more than one class.
    """

    files: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    tiny: list[tuple[str, tuple[int, int]]] = field(default_factory=list)
    odd_modes: list[tuple[str, str]] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    leaks: list[list[str]] = field(default_factory=list)
    conflicts: list[list[str]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there are files and nothing was found that spoils training or its evaluation."""
        return self.files > 0 and not (self.unreadable or self.leaks or self.conflicts)

    def __str__(self) -> str:
        parts = [
            ("unreadable", [f"{path!r}: {reason}" for path, reason in self.unreadable]),
            ("the same image in several splits", [repr(group) for group in self.leaks]),
            ("the same image in several classes", [repr(group) for group in self.conflicts]),
            ("groups of equal files", [repr(group) for group in self.duplicates]),
            ("tiny", [f"{path!r}: {width} x {height}" for path, (width, height) in self.tiny]),
            ("not RGB (converted when loaded)", [f"{path!r}: {mode}" for path, mode in self.odd_modes]),
        ]
        lines = [f"{self.files} files: {'fine' if self.ok else 'needs attention'}"]
        for title, items in parts:
            if items:
                lines.append(f"{len(items)} {title}")
                lines += [f"    {item}" for item in items[:_SHOWN]]
                lines += [f"    and {len(items) - _SHOWN} more"] * (len(items) > _SHOWN)
        return "\n".join(lines)


def check_images(directory: str, *, min_size: int = 32, progress: bool = False) -> ImageCheck:
    """Reads every file of a folder once, in parallel.

    Duplicates are files of equal content, whatever their names. Memory: about 300 bytes a file.

    Args:
        directory: A folder as `load` takes it.
        min_size: Images with a side below this are called tiny, >= 1.
        progress: Show a progress bar on stderr.

    Raises:
        ValueError: if there is no such folder.

    Example:
        >>> print(check_images("photos"))
    """
    check_integer("min_size", min_size, minimum=1)
    if not os.path.isdir(directory):
        raise ValueError(message("directory", "an existing folder", directory))
    found, paths_of = ImageCheck(), {}  # type: ignore[var-annotated]
    paths: Iterable[str] = walk_files(directory)
    if progress:
        from rich.console import Console
        from rich.progress import track

        paths = track(list(paths), "Checking images", console=Console(stderr=True))
    paths = iter(paths)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(islice(paths, _CHUNK)):
            for path, (digest, reason, size, mode) in zip(chunk, pool.map(_look, chunk)):
                found.files += 1
                paths_of.setdefault(digest, []).append(path)
                if reason:
                    found.unreadable.append((path, reason))
                    continue
                if min(size) < min_size:
                    found.tiny.append((path, size))
                if mode != "RGB":
                    found.odd_modes.append((path, mode))
    found.duplicates = [group for group in paths_of.values() if len(group) > 1]
    places = [[split_and_class(directory, path) for path in group] for group in found.duplicates]
    found.leaks = [g for g, place in zip(found.duplicates, places) if len({split for split, _ in place}) > 1]
    found.conflicts = [
        g for g, place in zip(found.duplicates, places) if len({name for _, name in place}) > 1
    ]
    return found


def _look(path: str) -> tuple[bytes, str, tuple[int, int], str]:
    """Digest of the content, why it is bad, size and mode."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        check_regular(path)
        with open(path, "rb") as content:
            while block := content.read(2**20):
                digest.update(block)
        decode(path, (8, 8))
        with Image.open(path) as image:
            return digest.digest(), "", image.size, image.mode
    except BadImageError as error:
        return digest.digest(), error.reason, (0, 0), ""
    except OSError as error:
        return os.fsencode(path), str(error), (0, 0), ""
