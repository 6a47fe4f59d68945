"""What a model file says about its outputs: a zip part in `.keras` and at the end of `.tflite` files."""

import json
import pathlib
import zipfile
import zlib

from tfopt.tasks import Classification, Task, make_task

LABELS, TASK = "labels.txt", "task.json"
_LARGEST = 4_000_000  # bytes that are read: a million short names
# What `zipfile` raises on damaged archives, and decoders on what they hold.
_DAMAGE = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, TypeError, OSError, EOFError, RuntimeError)


def stored_task(path: pathlib.Path) -> Task | None:
    """The task that a `.keras` or `.tflite` file names, or None.

    A file with labels alone is of a classifier, unless its outputs say otherwise.

    Raises:
        ValueError: If what it says is damaged.
    """
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            found = {name: _read(archive, name) for name in (TASK, LABELS) if name in archive.namelist()}
        if TASK in found:
            return make_task(json.loads(found[TASK]))
        return Classification(found[LABELS].splitlines()) if LABELS in found else None
    except _DAMAGE as error:
        raise ValueError(f"The labels in {str(path)!r} cannot be read: {error}.") from error


def stored_class_names(path: pathlib.Path) -> list[str] | None:
    """The names of the outputs that a file holds, or None."""
    task = stored_task(path)
    return None if task is None else list(task.names)


def damage_of(path: pathlib.Path) -> str:
    """What is wrong with a `.keras` file; "" if every part has the checksum it was written with."""
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
    except _DAMAGE as error:
        return str(error) or type(error).__name__
    return "" if changed is None else f"its part {changed!r} has changed"


def _read(archive: zipfile.ZipFile, name: str) -> str:
    if archive.getinfo(name).file_size > _LARGEST:
        raise ValueError(f"{name} has more than {_LARGEST // 1_000_000} MB")
    return archive.read(name).decode()
