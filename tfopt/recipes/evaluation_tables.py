"""An evaluation as tables for a terminal."""

from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tfopt.recipes.terminal import printable

_LARGEST_CONFUSION = 15  # classes; more do not fit into a terminal
_PAIRS = 10  # of confused classes, where the whole table does not fit
_NAMES = {"mae": "MAE", "rmse": "RMSE", "r2": "R2", "mae_of_mean": "MAE of the mean"}
_NO_SHARES = ("mae", "rmse", "r2", "mae_of_mean", "log_loss", "best_threshold")


def tables(evaluation: Any) -> Group:
    """What was judged, the measures, one row for each class, and which classes are confused."""
    measures = evaluation.measures
    parts: list[Any] = [_title(evaluation), _summary(evaluation)]
    rows = measures.get("classes") or measures.get("targets")
    if rows:
        parts.append(_rows(rows))
    if "confusion" in measures:
        parts.append(
            _confusion([row["name"] for row in measures["classes"]], np.array(measures["confusion"]))
        )
    return Group(*parts)


def _title(evaluation: Any) -> Text:
    split = "all images" if evaluation.split == "all" else f"split {evaluation.split}"
    text = f"{evaluation.model} on {evaluation.samples} images ({split} of {evaluation.data})"
    return Text(printable(text))


def _summary(evaluation: Any) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in evaluation.measures.items():
        if not isinstance(value, list):
            table.add_row(_words(name), _value(name, value))
    table.add_row("size", f"{evaluation.bytes / 1e3:,.1f} kB")
    if evaluation.latency_ms is not None:
        table.add_row("latency, 1 thread", f"{evaluation.latency_ms:.2f} ms")
    return table


def _rows(rows: list[dict[str, Any]]) -> Table:
    table = Table()
    for name in rows[0]:
        table.add_column(
            "class" if name == "name" else _words(name), justify="left" if name == "name" else "right"
        )
    for row in rows:
        values = [_value(name, value) for name, value in row.items() if name != "name"]
        table.add_row(Text(printable(row["name"])), *values)
    return table


def _confusion(names: list[str], counts: np.ndarray) -> Any:
    """Rows are true classes, columns answers; of many classes only the pairs that are confused most."""
    if len(names) <= _LARGEST_CONFUSION:
        table = Table(caption="rows: true class; columns: answer", caption_justify="left")
        table.add_column("")
        for number in range(len(names)):
            table.add_column(str(number + 1), justify="right")
        for number, (name, row) in enumerate(zip(names, counts)):
            cells = [str(count) if count else "." for count in row]
            table.add_row(Text(printable(f"{number + 1} {name}")), *cells)
        return table
    wrong = counts * (1 - np.eye(len(names), dtype=counts.dtype))
    table = Table(title="confused most often", title_justify="left")
    for title in ("true class", "answer", "images"):
        table.add_column(title)
    for place in np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS]:
        true, answer = divmod(int(place), len(names))
        if wrong[true, answer]:
            pair = (Text(printable(names[place])) for place in (true, answer))
            table.add_row(*pair, str(wrong[true, answer]))
    return table


def _words(name: str) -> str:
    return _NAMES.get(name, name.replace("_", " "))


def _value(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if np.isnan(value):
        return "-"
    return f"{value:.4g}" if name in _NO_SHARES else f"{value:.1%}"
