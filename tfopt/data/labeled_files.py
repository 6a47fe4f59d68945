"""Image files whose labels stand in a table: a CSV or TSV file, or a data frame."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfopt.data.bit_depth import grey_bits
from tfopt.data.decode import BadImageError
from tfopt.data.layout import split_of
from tfopt.data.random_access import Files
from tfopt.data.table import Columns, Table, find_columns
from tfopt.data.table_labels import table_labels
from tfopt.data.targets import check_task

_FOLDERS = ("", "images", "image", "img", "imgs", "photos", "pictures", "data", "train")
_ENDINGS = ("", ".jpg", ".jpeg", ".png", ".JPG", ".tif", ".bmp", ".webp")
_SPLITS = ("train", "validation", "test")


def from_table(
    table: Table,
    *,
    image_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
    split_column: str | None = None,
    weight_column: str | None = None,
    separator: str | None = None,
    task: str | None,
    class_names: Sequence[str] | None,
    skip: bool,
) -> tuple[dict[str, Files], tuple[str, ...], dict[str, Any]]:
    """Splits, names of classes or targets, and `task`, `notes`, `skipped` of the `ImageDataset`.

    Rows without a file are an error, or left out with `skip`. Two rows of one file are an error, unless
    `task` is "multilabel": then their labels belong together.
    """
    check_task(task)
    columns = find_columns(table, image_column, label_column, split_column, weight_column)
    if not table.rows:
        raise ValueError(f"{table.name} has no rows.")
    paths, missing = _paths(table, columns.image)
    skipped = tuple(os.fsdecode(paths[row]) for row in missing)
    if missing and not skip:
        row = missing[0]
        more = f" ({len(missing)} of {len(paths)} files are missing)" if len(missing) > 1 else ""
        cell = table.columns[columns.image][row]
        text = f"there is no file {cell!r} in {table.folder!r}{more}." if cell else "the cell is empty."
        raise table.error(row, columns.image, f"{text} Paths are relative to the table; see `data_dir`.")
    _drop(table, paths, missing)
    labels, names, task = table_labels(table, columns.labels, task, separator, class_names)
    weights = _weights(table, columns.weight)
    splits = _splits(table, columns.split)
    keep = _without_repetitions(table, columns, paths, labels, splits, task)
    bits = grey_bits(paths)
    found = {}
    for split in _SPLITS:
        rows = keep[splits[keep] == split]
        if len(rows):
            part = None if weights is None else weights[rows]
            found[split] = Files(np.array(paths, object)[rows], labels[rows], weights=part, grey_bits=bits)
    _check_classes(table, columns, found, names, task)
    return (
        found,
        names,
        {
            "task": task,
            "notes": tuple(table.notes),
            "skipped": skipped,
            "source": table.name.strip("'"),
        },
    )


def _paths(table: Table, column: str) -> tuple[list[bytes], list[int]]:
    """The file of each row, and the rows without one; all files lie in one folder, with one ending."""
    cells = [cell.replace("\\", "/") if os.sep == "/" else cell for cell in table.columns[column]]
    first = next((cell for cell in cells if cell), "")
    places = [(folder, ending) for ending in _ENDINGS for folder in _FOLDERS]
    for folder, ending in places:
        if first and os.path.isfile(os.path.join(table.folder, folder, first + ending)):
            break
    else:
        folder, ending = "", ""
    if folder or ending:
        table.notes.append(f"images are found as {os.path.join(folder, '...' + ending)!r}")
    paths = [os.path.join(table.folder, folder, cell + ending) for cell in cells]
    missing = [row for row, path in enumerate(paths) if not cells[row] or not os.path.isfile(path)]
    return [os.fsencode(os.path.normpath(path)) for path in paths], missing


def _drop(table: Table, paths: list[bytes], rows: Sequence[int]) -> None:
    gone = set(rows)
    if not gone:
        return
    if len(gone) == len(paths):
        raise BadImageError(table.name, "none of its files exists")
    table.notes.append(f"left out {len(gone)} rows without a file, such as row {table.rows[rows[0]]}")
    keep = [row for row in range(len(paths)) if row not in gone]
    paths[:] = [paths[row] for row in keep]
    table.rows = [table.rows[row] for row in keep]
    table.columns = {name: [cells[row] for row in keep] for name, cells in table.columns.items()}


def _weights(table: Table, column: str | None) -> np.ndarray | None:
    if column is None:
        return None
    weights: np.ndarray = np.empty(len(table.rows), np.float32)
    for row, cell in enumerate(table.columns[column]):
        try:
            weights[row] = float(cell)
        except ValueError:
            weights[row] = np.nan
        if not 0 <= weights[row] < np.inf:
            raise table.error(row, column, f"a sample weight is a number >= 0, not {cell!r}.")
    return weights


def _splits(table: Table, column: str | None) -> np.ndarray:
    if column is None:
        return np.full(len(table.rows), "train")
    splits = []
    for row, cell in enumerate(table.columns[column]):
        split = split_of(cell)
        if split is None:
            raise table.error(row, column, f"{cell!r} is no split: use 'train', 'validation' or 'test'.")
        splits.append(split)
    if "train" not in splits:
        raise ValueError(f"{table.name}, column {column!r} has no row for 'train': {sorted(set(splits))}.")
    return np.array(splits)


def _without_repetitions(
    table: Table, columns: Columns, paths: list[bytes], labels: np.ndarray, splits: np.ndarray, task: str
) -> np.ndarray:
    """The rows that stay; merges the labels of one image if it may have several."""
    first: dict[bytes, int] = {}
    for row, path in enumerate(paths):
        other = first.setdefault(path, row)
        if other == row:
            continue
        if task != "multilabel" or splits[other] != splits[row]:
            fix = "Remove one; with task='multilabel', labels of rows of one split belong together."
            text = f"the same file as in row {table.rows[other]}. {fix}"
            raise table.error(row, columns.image, text)
        labels[other] = np.maximum(labels[other], labels[row])
    return np.array(sorted(first.values()), np.int64)


def _check_classes(
    table: Table, columns: Columns, splits: dict[str, Files], names: tuple[str, ...], task: str
) -> None:
    if task == "regression":
        return
    labels = splits["train"].labels
    counts = labels.sum(0) if task == "multilabel" else np.bincount(labels, minlength=len(names))
    absent = [name for name, count in zip(names, counts) if count == 0]
    if absent:
        where = f"column {', '.join(columns.labels)!r} of {table.name}"
        raise ValueError(f"Classes without images in train, in {where}: {absent}.")
