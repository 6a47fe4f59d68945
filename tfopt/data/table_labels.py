"""Turns the label columns of a table into labels of the task that they suggest, or that is given."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfopt._checks import message
from tfopt.data.table import Table
from tfopt.data.targets import check_names

_MANY = 20  # different whole numbers that are no classes, unless they count classes without a gap
_IN_CLASS = 3  # images at least in each class that is only a number


def table_labels(
    table: Table,
    columns: Sequence[str],
    task: str | None,
    separator: str | None,
    class_names: Sequence[str] | None,
) -> tuple[np.ndarray, tuple[str, ...], str]:
    """Labels as `ImageDataset` has them, names of classes or targets, and the task.

    Without a task: text is classes; a separator in it several labels; numbers with decimals, or of many
    values, a regression; several columns of zeros and ones are several labels, or one class if every row
    has exactly one 1.

    Raises:
        ValueError: Naming row and column of a cell that does not fit.
    """
    if len(columns) > 1:
        return _several_columns(table, columns, task, class_names)
    (column,) = columns
    cells = table.columns[column]
    if task is None and separator is None:
        _refuse_decimal_commas(table, column)
    if task is None:
        task, separator, why = _suggested(cells, separator)
        table.notes.append(f"task: {task}, as {why} in {column!r}")
    elif task == "multilabel" and separator is None:
        separator = _separator_in(cells)
    if task == "regression":
        return _numbers(table, [column]), check_names(class_names or [column]), task
    if task == "multilabel":
        return *_sets(table, column, separator, class_names), task
    for row, cell in enumerate(cells):
        if not cell:
            raise table.error(row, column, "the label is empty. Fill it in or remove the row.")
    names = check_names(class_names or sorted(set(cells), key=_natural))
    return _indices(table, column, cells, names), names, task


def _suggested(cells: Sequence[str], separator: str | None) -> tuple[str, str | None, str]:
    """The task, the separator and why."""
    if separator is not None:
        return "multilabel", separator, f"the separator {separator!r} is given for labels"
    values = [_number(cell) for cell in cells if cell]
    numbers = [value for value in values if value is not None]
    if values and len(numbers) == len(values):
        if any(value % 1 for value in numbers):
            return "regression", None, "there are decimals"
        if len(set(numbers)) > _MANY and not _count_classes(numbers):
            return "regression", None, f"there are {len(set(numbers))} different numbers"
        return "classification", None, f"there are {len(set(numbers))} whole numbers"
    found = _separator_in(cells)
    if found:
        return "multilabel", found, f"{found!r} separates labels"
    return "classification", None, f"there are {len(set(cells))} different texts"


def _refuse_decimal_commas(table: Table, column: str) -> None:
    """Numbers as spreadsheets of many countries write them would become several labels: "0,5" 0 and 5."""
    cells = table.columns[column]
    if all(re.fullmatch(r"[+-]?\d+(,\d+)?", cell) for cell in cells if cell):
        for row, cell in enumerate(cells):
            if "," in cell:
                fix = "Write numbers with a point, or say task='multilabel' for labels."
                raise table.error(row, column, f"{cell!r} may be one number or two labels. {fix}")


def _count_classes(numbers: Sequence[float]) -> bool:
    """Whether whole numbers count classes: without a gap from 0 or 1, each of several images."""
    counts, low = Counter(numbers), min(numbers)
    return low in (0, 1) and max(numbers) - low + 1 == len(counts) and min(counts.values()) >= _IN_CLASS


def _separator_in(cells: Sequence[str]) -> str | None:
    """The character that separates labels; a comma only if its parts come in other company as well."""
    different = sorted(set(cells))
    for character in "|;,":
        if not any(character in cell for cell in different):
            continue
        parts = Counter(part for cell in different for part in set(_parts(cell, character)))
        if character != "," or max(parts.values()) > 1:
            return character
    return None


def _parts(cell: str, separator: str | None) -> list[str]:
    texts = [cell] if separator is None else cell.split(separator)
    return [text.strip() for text in texts if text.strip()]


def _sets(
    table: Table, column: str, separator: str | None, class_names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    sets = [_parts(cell, separator) for cell in table.columns[column]]
    names = check_names(class_names or sorted({part for parts in sets for part in parts}, key=_natural))
    number = {name: place for place, name in enumerate(names)}
    labels: np.ndarray = np.zeros((len(sets), len(names)), np.float32)
    for row, parts in enumerate(sets):
        for part in parts:
            if part not in number:
                raise table.error(row, column, f"{part!r} is none of `class_names`: {names}.")
            labels[row, number[part]] = 1
    if empty := sum(not parts for parts in sets):
        table.notes.append(f"{empty} images have no label in {column!r}")
    return labels, names


def _several_columns(
    table: Table, columns: Sequence[str], task: str | None, class_names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...], str]:
    values = _numbers(table, columns)
    flags = bool(np.isin(values, (0, 1)).all())
    one_each = flags and bool((values.sum(1) == 1).all())
    if task is None:
        task = ("classification" if one_each else "multilabel") if flags else "regression"
        kind = "zeros and ones" + ", one 1 in each row," * one_each if flags else "numbers"
        table.notes.append(f"task: {task}, as there are {kind} in {len(columns)} columns")
    names = check_names(class_names or columns)
    if task == "regression":
        return values, names, task
    bad = ~np.isin(values, (0, 1)) if not flags or task == "multilabel" else values.sum(1, keepdims=True) != 1
    if bad.any():
        row = int(bad.any(1).argmax())
        expected = "zeros and ones" if task == "multilabel" else "exactly one 1 in the row, for one class"
        found = values[row].tolist()
        raise table.error(row, ", ".join(columns), f"expected {expected}, found {found}.")
    return (values, names, task) if task == "multilabel" else (values.argmax(1), names, task)


def _numbers(table: Table, columns: Sequence[str]) -> np.ndarray:
    values: np.ndarray = np.empty((len(table.rows), len(columns)), np.float32)
    for place, column in enumerate(columns):
        for row, cell in enumerate(table.columns[column]):
            number = _number(cell)
            if number is None:
                what = f"{cell!r} is no number" if cell else "the cell is empty"
                raise table.error(row, column, f"{what}; labels in several columns and of a regression are.")
            values[row, place] = number
    return values


def _indices(table: Table, column: str, cells: Sequence[str], names: Sequence[str]) -> np.ndarray:
    number: dict[Any, int] = {name: place for place, name in enumerate(names)}
    for row, cell in enumerate(cells):
        if cell not in number:
            raise table.error(row, column, f"{cell!r} is none of `class_names`: {tuple(names)}.")
    if len(names) < 2:
        fix = "A classifier needs two classes."
        raise ValueError(message(f"column {column!r} of {table.name}", "of two classes or more", names, fix))
    return np.array([number[cell] for cell in cells], np.int64)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _natural(text: str) -> tuple[int, float, str]:
    """Numbers in their order, before text."""
    number = _number(text)
    return (1, 0.0, text) if number is None else (0, number, text)
