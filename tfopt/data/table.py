"""Reads tables of images and labels, from CSV and TSV files or data frames, and finds their columns."""

import csv
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tfopt._checks import message
from tfopt.data.walk import EXTENSIONS

ENDINGS = (".csv", ".tsv")
_SEPARATORS = (",", ";", "\t", "|")
_USUAL = {
    "image_column": "filename file filepath path image imagepath imagefile imagename imageid img imgpath "
    "imgname picture photo files filenames images paths id idcode "
    "imgid imagecode name",
    "label_column": "label labels class classes target targets category categories classname classid "
    "labelname classlabel tag tags y breed species diagnosis",
    "split_column": "split subset set partition phase dataset usage fold",
    "weight_column": "weight weights sampleweight sampleweights importance",
}


@dataclass
class Table:
    """Columns of text, and how to name a row to the reader.

    Attributes:
        name: Path of the file, or "the data frame".
        columns: Cells by column; "" where a cell is empty.
        rows: The line of each row in the file, or its place in the data frame.
        folder: What relative paths begin at.
        notes: What was decided while reading.
    """

    name: str
    columns: dict[str, list[str]]
    rows: list[int]
    folder: str
    notes: list[str] = field(default_factory=list)

    def error(self, row: int, column: str, text: str) -> ValueError:
        """A sentence that names the place of a bad cell."""
        return ValueError(f"{self.name}, row {self.rows[row]}, column {column!r}: {text}")


@dataclass
class Columns:
    """The names of the columns that mean something; None for what the table lacks."""

    image: str
    labels: tuple[str, ...]
    split: str | None
    weight: str | None


def is_frame(source: Any) -> bool:
    """Whether something is a table in memory, as of pandas."""
    return hasattr(source, "columns") and hasattr(source, "__getitem__") and hasattr(source, "__len__")


def read_frame(frame: Any, folder: str | None) -> Table:
    """A table from a data frame of pandas or the like; missing values become empty cells."""
    columns = {str(name): [_cell(value) for value in frame[name]] for name in frame.columns}
    return Table("the data frame", columns, list(range(len(frame))), folder or os.getcwd())


def _cell(value: Any) -> str:
    missing = value is None or value != value or str(value) == "<NA>"  # NaN is not equal to itself
    return "" if missing else str(value).strip()


def read_table(path: str, folder: str | None) -> Table:
    """A table from a CSV or TSV file, with or without a line of column names."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")  # what Excel writes
    separator = _separator(path, text)
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(cells)]
    if not lines:
        raise ValueError(message("source", "a file with a table", path, "The file is empty."))
    header, notes = lines[0][1], []
    if any(_is_image_name(cell) for cell in header):
        header = [f"column {number}" for number in range(1, len(header) + 1)]
        notes.append(f"{path!r} has no line of column names: they are {header}")
    else:
        lines = lines[1:]
    if len(set(header)) < len(header):
        raise ValueError(f"{path!r} has two columns of one name: {header}. Rename one.")
    for line, cells in lines:
        if len(cells) != len(header):
            raise ValueError(
                f"{path!r}, row {line} has {len(cells)} cells, but there are {len(header)} columns: "
                f"{header}. Quote cells that contain {separator!r}."
            )
    columns = {name: [cells[place] for _, cells in lines] for place, name in enumerate(header)}
    base = folder or os.path.dirname(os.path.abspath(path))
    return Table(repr(path), columns, [line for line, _ in lines], base, notes)


def _separator(path: str, text: str) -> str:
    first = text.split("\n", 1)[0]
    if path.lower().endswith(".tsv") or "\t" in first:
        return "\t"
    return max(_SEPARATORS, key=lambda character: (first.count(character), character == ","))


def find_columns(
    table: Table,
    image_column: str | None,
    label_column: str | Sequence[str] | None,
    split_column: str | None,
    weight_column: str | None,
) -> Columns:
    """Columns as given, or by their usual names, or by what is in them; adds to the table's notes.

    Raises:
        ValueError: For a column that does not exist, and if no column or several could be meant.
    """
    given = {"image_column": image_column, "split_column": split_column, "weight_column": weight_column}
    labels = [label_column] if isinstance(label_column, str) else list(label_column or ())
    for option, names in [*((key, [name]) for key, name in given.items() if name), ("label_column", labels)]:
        for name in names:
            if name not in table.columns:
                raise ValueError(message(option, f"a column of {table.name}: {list(table.columns)}", name))
    image = image_column or _image_column(table)
    free = [name for name in table.columns if name != image and name not in labels]
    split = split_column or _usual(free, "split_column", table)
    weight = weight_column or _usual(free, "weight_column", table)
    if not labels:
        labels = _label_columns(
            table, [name for name in free if name not in (split, weight)], (split, weight)
        )
    found = Columns(image, tuple(labels), split, weight)
    parts = {"images": image, "labels": labels if len(labels) > 1 else labels[0]}
    parts |= {"splits": split} if split else {}
    parts |= {"sample weights": weight} if weight else {}
    unused = sorted(set(table.columns) - {image, *labels, split, weight})
    table.notes.append(
        "columns: " + ", ".join(f"{what} {name!r}" for what, name in parts.items())
        + (f"; not used: {unused}" if unused else "")
    )  # fmt: skip
    return found


def _usual(names: Sequence[str], option: str, table: Table) -> str | None:
    """The column with a usual name; of several, the one whose name is the most usual."""
    usual = _USUAL[option].split()
    plain = {name: re.sub(r"[\W_]+", "", name.lower()) for name in names}
    found = [name for name in names if plain[name] in usual]
    if option == "split_column":  # a fold for cross-validation is no split
        found = [name for name in found if not all(map(_is_number, table.columns[name]))]
    if not found:
        return None
    first = min(found, key=lambda name: usual.index(plain[name]))
    if len(found) > 1:
        table.notes.append(f"of the columns {found}, {first!r} was taken as `{option}`")
    return first


def _image_column(table: Table) -> str:
    names = list(table.columns)
    of_images = [name for name in names if _share_of_images(table.columns[name]) > 0.5]
    found = of_images[0] if len(of_images) == 1 else _usual(of_images or names, "image_column", table)
    if found is None:
        fix = f"Pass `image_column`: {list(table.columns)}."
        raise ValueError(f"{table.name} has no column that is clearly one of image files. {fix}")
    return found


def _label_columns(table: Table, names: list[str], others: Sequence[str | None]) -> list[str]:
    """The columns of labels among `names`; `others` were taken for something else."""
    usual = _usual(names, "label_column", table)
    if usual:
        return [usual]
    if len(names) == 1:
        return names
    flags = [name for name in names if set(table.columns[name]) <= {"0", "1", "0.0", "1.0"}]
    if len(flags) > 1:
        return flags
    taken = [name for name in others if name is not None]
    fix = f"Pass `label_column`, one name or several: {names or taken}."
    fix += f" By their names, {taken} were taken for splits or sample weights." if taken else ""
    raise ValueError(f"{table.name} has no column that is clearly one of labels. {fix}")


def _share_of_images(cells: Sequence[str]) -> float:
    return sum(map(_is_image_name, cells)) / max(len(cells), 1)


def _is_image_name(cell: str) -> bool:
    return cell.lower().endswith(EXTENSIONS)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
