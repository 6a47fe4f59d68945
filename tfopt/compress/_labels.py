"""Labels in a .tflite file: a zip archive at its end, which interpreters ignore and any zip program shows."""

import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from tfopt._checks import message
from tfopt.compress._matching import Port

LABELS = "labels.txt"
LARGEST = 4_000_000  # bytes of labels that are read: a million short names


def check_class_names(outputs: Sequence[Port], class_names: Any) -> None:
    """Refuses labels that do not fit the outputs.

    Raises:
        ValueError: If there is not one name of one line for each channel of an output.
    """
    if class_names is None:
        return
    if isinstance(class_names, Mapping):
        known = [port.name for port in outputs]
        for name, names in class_names.items():
            if name not in known:
                raise ValueError(message("class_names", f"labels of the outputs {known}", name))
            check_class_names([port for port in outputs if port.name == name], names)
        return
    counts = {port.shape[-1] for port in outputs if port.shape}
    lines = not isinstance(class_names, str) and all(
        isinstance(name, str) and len(name.splitlines()) == 1 for name in class_names
    )
    if not lines or not any(_fits(count, len(class_names)) for count in counts):
        count = " or ".join(str(count) for count in sorted(c for c in counts if c is not None))
        raise ValueError(
            message("class_names", f"{count} names of one line, one for each output", class_names)
        )


def store_labels(path: pathlib.Path, outputs: Sequence[Port], class_names: Any) -> None:
    """Appends the labels to a file."""
    single = not isinstance(class_names, Mapping)
    named = {LABELS: class_names} if single else {f"labels_{k}.txt": v for k, v in class_names.items()}
    with zipfile.ZipFile(path, "a") as archive:
        for name, names in named.items():
            undated = zipfile.ZipInfo(name)  # the same model gives the same file
            archive.writestr(undated, "\n".join(names))


def stored_labels(path: pathlib.Path) -> Any:
    """The labels in a file: a list, a dictionary of lists for several outputs, or None.

    Raises:
        ValueError: If they are damaged, or larger than labels are.
    """
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [
                e
                for e in archive.infolist()
                if e.filename.startswith("labels") and e.filename.endswith("txt")
            ]
            if sum(entry.file_size for entry in entries) > LARGEST:
                raise ValueError(f"it holds more than {LARGEST // 1_000_000} MB of them")
            found = {entry.filename: archive.read(entry).decode().splitlines() for entry in entries}
    except (ValueError, OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"The labels in {str(path)!r} cannot be read: {error}.") from error
    if LABELS in found:
        return found[LABELS]
    several = {
        name[len("labels_") : -len(".txt")]: names for name, names in found.items() if name[6:7] == "_"
    }
    return several or None


def _fits(channels: int | None, names: int) -> bool:
    return names == channels or (channels == 1 and names == 2)
