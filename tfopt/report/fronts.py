"""The page of a front: how accurate a model stays as its file gets smaller."""

import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

from tfopt.report.charts import axis_scale
from tfopt.report.content import ModelRow
from tfopt.report.markup import Markup, join, tag
from tfopt.report.numbers import (
    MISSING,
    bytes_text,
    finite,
    milliseconds,
    percent,
    percent_range,
    tick_texts,
)
from tfopt.report.page import Section, data_table, render, save


@dataclass(frozen=True)
class FrontRow:
    """One size.

    Args:
        limit: Its name, such as "250k".
        model: The file that was made for it; None if the size is out of reach.
        decisions: How it was made, such as "62 % of the channels, int8", or why it was not.
        report: Address of its own report, relative to this page; "" for none.
    """

    limit: str
    model: ModelRow | None
    decisions: str
    report: str = ""


def write_front(
    path: str | os.PathLike[str], title: str, subtitle: str, rows: Sequence[FrontRow], whole: ModelRow
) -> pathlib.Path:
    """Writes the page as one self-contained HTML file and returns its path.

    Args:
        path: File to write; an existing file is replaced when the new one is complete.
        title: Heading.
        subtitle: What the model was measured on.
        rows: One for each size.
        whole: The float model before anything was removed.
    """
    lead = (
        "Each file was made from the same float model, trained and measured on the same test images. A size "
        "where the line is flat costs nothing; where it falls, accuracy is paid."
    )
    body = join([_chart([row.model for row in rows if row.model is not None], whole), _table(rows, whole)])
    return save(path, render(title, subtitle, Markup(""), [Section("front", "Accuracy by size", body, lead)]))


def _chart(models: Sequence[ModelRow], whole: ModelRow) -> Markup | None:
    """Accuracy over bytes, with intervals; none for results that are no accuracy."""
    width, height, left, right, top, bottom = 640, 280, 56, 610, 14, 232
    shown = sorted((m for m in models if m.bytes and m.accuracy is not None), key=lambda m: m.bytes or 0)
    if len(shown) < 2 or whole.accuracy is None:
        return None
    bounds = [bound for m in shown for bound in (m.interval or (m.accuracy or 0.0,))]
    x = axis_scale([float(m.bytes or 1) for m in shown], left, right, log=True)
    y = axis_scale(finite([*bounds, whole.accuracy]), bottom, top, highest=1.0)
    grid = [
        join(
            [
                tag("line", x1=left, x2=right, y1=y(mark), y2=y(mark), class_="grid"),
                tag("text", text, x=left - 7, y=y(mark) + 4, class_="tick right"),
            ]
        )
        for mark, text in zip(y.marks(), tick_texts(y.marks(), share=True))
    ]
    line = " ".join(f"{x(m.bytes or 1):.1f},{y(m.accuracy or 0.0):.1f}" for m in shown)
    dots = []
    for m in shown:
        at, low, high = x(m.bytes or 1), *(m.interval or (m.accuracy or 0.0, m.accuracy or 0.0))
        dots += [
            tag("line", x1=at, x2=at, y1=y(low), y2=y(high), class_="whisker s1"),
            tag(
                "circle",
                tag("title", f"{m.name}: {percent(m.accuracy)}, {bytes_text(m.bytes)}"),
                cx=at,
                cy=y(m.accuracy or 0.0),
                r=4,
                class_="f1",
            ),
            tag("text", bytes_text(m.bytes), x=at, y=bottom + 20, class_="tick"),
        ]
    summary = ", ".join(f"{bytes_text(m.bytes)} {percent(m.accuracy)}" for m in shown)
    drawing = tag(
        "svg",
        grid,
        tag("line", x1=left, x2=right, y1=y(whole.accuracy), y2=y(whole.accuracy), class_="edge"),
        tag(
            "text",
            f"{whole.name} {percent(whole.accuracy)}",
            x=right,
            y=y(whole.accuracy) - 5,
            class_="tick right",
        ),
        tag("polyline", points=line, class_="line s1"),
        dots,
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=f"Accuracy by size of the file: {summary}",
    )
    return tag("figure", tag("figcaption", "Test accuracy by bytes, logarithmic"), drawing, class_="chart")


def _table(rows: Sequence[FrontRow], whole: ModelRow) -> Markup:
    head = [
        "limit",
        "how",
        "result" if whole.accuracy is None else "accuracy",
        "95 % interval",
        "file",
        "zipped",
        "latency, 1 image",
        "report",
    ]
    kept = ModelRow(whole.name, whole.accuracy, whole.interval, result=whole.result)  # a file of another kind
    cells = [_cells(FrontRow("none", kept, "the float model"))]
    return data_table(head, [*cells, *(_cells(row) for row in rows)], numeric_from=2)


def _cells(row: FrontRow) -> list[Markup | str]:
    found = row.model or ModelRow(row.limit)
    return [
        *(
            row.limit,
            row.decisions,
            percent(found.accuracy) if found.accuracy is not None else found.result or MISSING,
            percent_range(found.interval),
        ),
        *(bytes_text(found.bytes), bytes_text(found.zipped_bytes), milliseconds(found.latency_ms)),
        tag("a", "open", href=row.report) if row.report else "",
    ]
