"""The section on single classes: what the model that ships recognizes of each, beside the reference."""

from collections.abc import Sequence

import numpy as np

from tfopt.report.content import ModelRow, Report
from tfopt.report.markup import Markup, tag
from tfopt.report.numbers import MISSING, percent
from tfopt.report.page import Section, data_table

_SHOWN = 40  # classes; of more, those that lose most and those that are recognized least


def classes(report: Report) -> Section | None:
    """Recall of each class by the first and the last model, the largest loss first; precision, F1, means."""
    rows = [row for row in report.models if row.recalls is not None]
    if not rows:
        return None
    first, last = rows[0], rows[-1]
    lead = f"Recall: the share of a class's {report.evaluated_on} that a model recognizes."
    if first is not last:
        lead += f" The classes that {last.name} loses most of come first. {_balanced(first, last)}"
    order = _order(first, last)
    table = _table(report, first, last, order[:_SHOWN])
    hidden = len(order) - _SHOWN
    if hidden > 0:
        lead += f" {hidden} more classes lose no more and are recognized no less than those shown."
    if report.measures:
        every = ", ".join(f"{name} {value}" for name, value in report.measures.items())
        lead += f" {report.evaluated_model or last.name}: {every}."
    return Section("classes", "Classes", table, lead)


def _balanced(first: ModelRow, last: ModelRow) -> str:
    if first.balanced_accuracy is None or last.balanced_accuracy is None:
        return ""
    return (
        f"Balanced accuracy, the mean over the classes: {percent(first.balanced_accuracy)} by {first.name}, "
        f"{percent(last.balanced_accuracy)} by {last.name}."
    )


def _order(first: ModelRow, last: ModelRow) -> list[int]:
    """Classes by what they lose, then by recall; those without test images last."""

    def key(index: int) -> tuple[bool, float, float]:
        before, after = _recalls(first)[index], _recalls(last)[index]
        if before is None or after is None:
            return (True, 0.0, 0.0)
        return (False, after - before, after)

    return sorted(range(len(_recalls(last))), key=key)


def _table(report: Report, first: ModelRow, last: ModelRow, order: Sequence[int]) -> Markup:
    counted = None if report.confusion is None else np.sum(report.confusion, axis=1)
    several = first is not last
    precisions = _precision_and_f1(report)
    head = ["class", report.evaluated_on, *([first.name] if several else []), last.name]
    rows: list[list[str | Markup]] = []
    for index in order:
        before, after = _recalls(first)[index], _recalls(last)[index]
        support = MISSING if counted is None else f"{int(counted[index]):,}"
        cells = [percent(before)] * several + [percent(after)]
        rest = [percent(values[index]) for values in precisions]
        rows.append(
            [report.class_names[index], support, *cells, *([_change(before, after)] * several), *rest]
        )
    return data_table(
        [*head, *(["change, points"] if several else []), *(["precision", "F1"] if precisions else [])], rows
    )


def _precision_and_f1(report: Report) -> list[list[float | None]]:
    """Of each class, by the model whose confusion is in the report; None where nothing was answered."""
    if report.confusion is None:
        return []
    confusion = np.asarray(report.confusion)
    right, true, answered = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    precision = [hits / count if count else None for hits, count in zip(right, answered)]
    f1 = [2 * hits / count if count else None for hits, count in zip(right, true + answered)]
    return [precision, f1]


def _change(before: float | None, after: float | None) -> str | Markup:
    if before is None or after is None:
        return MISSING
    points = 100 * (after - before)
    if abs(points) < 0.05:
        return "0"
    text = f"{points:+.1f}".replace("-", "\u2212")
    return tag("span", text, class_="wrong") if points < -5 else text


def _recalls(row: ModelRow) -> Sequence[float | None]:
    return row.recalls or ()
