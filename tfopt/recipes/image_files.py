"""Paths that people give for images: files, folders, patterns, a list on standard input."""

import glob
import os
from collections.abc import Iterable, Iterator


def image_files(paths: Iterable[str | os.PathLike], listed: Iterable[str] = ()) -> Iterator[str]:
    """The files that paths stand for, in their order.

    A folder stands for all images at any depth below it, without the junk that systems leave there; a
    pattern such as "photos/*.jpg" for what it matches, where the shell has not replaced it already; "-" for
    the lines of `listed`. A path that does not exist is given back, for the reader to report.

    Args:
        paths: What was given.
        listed: Lines of standard input.

    Raises:
        ValueError: If a folder holds no images, or nothing matches a pattern.
    """
    for given in paths:
        path = os.path.expanduser(os.fspath(given))
        if path == "-":
            yield from image_files(line.rstrip("\r\n") for line in listed if line.strip())
        elif os.path.isdir(path):
            yield from _in_folder(path)
        elif glob.has_magic(path) and not os.path.exists(path):
            matches = sorted(glob.glob(path, recursive=True))
            if not matches:
                raise ValueError(f"Nothing matches the pattern {path!r}.")
            for match in matches:
                yield from _in_folder(match) if os.path.isdir(match) else [match]
        else:
            yield path


def _in_folder(folder: str) -> Iterator[str]:
    from tfopt.data.walk import Walk

    found = 0
    for path, image in Walk().files(folder):
        if image:
            found += 1
            yield path
    if not found:
        raise ValueError(f"The folder {folder!r} holds no images.")
