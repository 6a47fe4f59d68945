"""Image sets in Parquet files, as `datasets` of Hugging Face saves them: encoded images beside labels."""

import json
import os
import re
from typing import Any, final

import numpy as np

from tfopt._checks import message
from tfopt._optional import require
from tfopt.data.decode import decode_bytes
from tfopt.data.layout import split_of
from tfopt.data.random_access import PythonAccess
from tfopt.data.targets import named_targets
from tfopt.data.walk import Walk

_IMAGES = ("image", "img", "picture", "pixel_values")
_LABELS = ("label", "labels", "fine_label", "class", "target")


@final
class Encoded(PythonAccess):
    """Encoded images in memory, decoded when they are read. `contents[i].as_py()` gives the bytes of one."""

    def __init__(self, contents: Any, labels: np.ndarray, name: str, rows: np.ndarray | None = None) -> None:
        super().__init__(labels, None)
        self.contents, self.name = contents, name
        self.rows = np.arange(len(labels)) if rows is None else rows

    def array(self, index: int) -> np.ndarray:
        """Decodes one image."""
        row = int(self.rows[int(index)])
        return decode_bytes(self.contents[row].as_py() or b"", f"{self.name}, row {row}")

    def taken(self, indices: np.ndarray) -> "Encoded":
        """Some of the images."""
        return Encoded(self.contents, self.labels[indices], self.name, self.rows[indices])

    def content(self, index: int) -> bytes:
        """The encoded image."""
        return self.contents[int(self.rows[index])].as_py() or b""


def parquet_files(source: str) -> dict[str, list[str]]:
    """The Parquet files of each split of a folder or file; empty for a folder that has image files too."""
    if source.lower().endswith(".parquet") and os.path.isfile(source):
        return {"train": [source]}
    found: dict[str, list[str]] = {}
    for folder in (source, os.path.join(source, "data")):
        if not os.path.isdir(folder):
            continue
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            split = split_of(re.split(r"[-.]", name)[0])
            inner = sorted(os.listdir(path)) if split and os.path.isdir(path) else []
            files = [path] if name.endswith(".parquet") else [os.path.join(path, part) for part in inner]
            files = [file for file in files if file.endswith(".parquet") and os.path.isfile(file)]
            if files:
                found.setdefault(split or "train", []).extend(files)
    return {} if found and any(image for _, image in Walk().files(source)) else found


def from_parquet(
    source: str, files: dict[str, list[str]], class_names: Any, task: str | None
) -> tuple[dict[str, Encoded], tuple[str, ...], dict[str, Any]]:
    """Splits, names of classes, and `task`, `notes` and `source` of the `ImageDataset`.

    The encoded images are held in memory.

    Raises:
        ValueError: If there is no column of images or of labels that are classes or numbers.
    """
    parquet = require("pyarrow.parquet", "`tfopt.data.load` of Parquet files")
    schemas = [parquet.read_schema(paths[0]) for paths in files.values()]
    image = _column(source, schemas[0].names, _IMAGES, "images")
    label = _column(source, schemas[0].names, _LABELS, "labels")
    kept = (_class_names(schema, label) for schema in schemas)
    names = class_names or next((found for found in kept if found), None)
    contents, labels = {}, {}
    for split, paths in files.items():
        table = parquet.ParquetDataset(paths).read(columns=[image, label])
        contents[split] = _bytes(source, image, table[image].combine_chunks())
        labels[split] = table[label].to_numpy()
        if labels[split].dtype.kind == "O":
            labels[split] = np.array([str(value) for value in labels[split]])
    if all(values.dtype.kind == "U" for values in labels.values()):
        names = names or sorted({text for values in labels.values() for text in values.tolist()})
        number = {name: place for place, name in enumerate(names)}
        labels = {split: np.array([number[text] for text in values]) for split, values in labels.items()}
    numbers = any(values.dtype.kind == "f" for values in labels.values())
    task = task or ("regression" if numbers else "classification")
    checked, names = named_targets(labels, names, task)
    splits = {split: Encoded(contents[split], checked[split], f"{source!r}, {split}") for split in files}
    note = f"columns: images {image!r}, labels {label!r}; task: {task}"
    return splits, names, {"task": task, "notes": (note,), "source": source}


def _column(source: str, names: list[str], usual: tuple[str, ...], what: str) -> str:
    for name in usual:
        if name in names:
            return name
    expected = f"with a column of {what}, named as one of {usual}"
    raise ValueError(message("source", expected, source, f"It has {names}."))


def _class_names(schema: Any, label: str) -> list[str] | None:
    """The names that `datasets` keeps beside the numbers."""
    about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    feature = about.get("info", {}).get("features", {}).get(label, {})
    return feature.get("names") if isinstance(feature, dict) else None


def _bytes(source: str, column: str, values: Any) -> Any:
    """The encoded images of a column of bytes, or of {"bytes": ..., "path": ...}."""
    pyarrow = require("pyarrow", "`tfopt.data.load` of Parquet files")
    if pyarrow.types.is_struct(values.type):
        values = values.field("bytes")
    if not (pyarrow.types.is_binary(values.type) or pyarrow.types.is_large_binary(values.type)):
        expected = "of encoded images (bytes, or {'bytes', 'path'})"
        raise ValueError(message(f"column {column!r} of {source!r}", expected, str(values.type)))
    if values.null_count == len(values):
        fix = "Save the images themselves, as `datasets.Dataset.to_parquet` does after decoding."
        expected = "with images, not with paths only"
        raise ValueError(message(f"column {column!r} of {source!r}", expected, "no bytes", fix))
    return values
