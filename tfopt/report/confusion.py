"""The confusion matrix as a picture, and its largest off-diagonal entries as words."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from tfopt.report.markup import Markup, tag

_NUMBERED = 30  # classes up to which a cell has room for its count
# Classes up to which all cells are drawn: a page of 1,000 would have a million, each of less than a pixel.
_DRAWN = 60


def drawn_classes(matrix: np.ndarray) -> list[int]:
    """Indices of the classes that `confusion_chart` has room for: all, or those with the largest mistakes."""
    if len(matrix) <= _DRAWN:
        return list(range(len(matrix)))
    chosen: set[int] = set()
    for true, predicted, *_ in _largest_mistakes(matrix):
        if len(chosen | {true, predicted}) > _NUMBERED:
            break
        chosen |= {true, predicted}
    return sorted(chosen)


def confusion_chart(matrix: np.ndarray, names: Sequence[str], shown: Sequence[int] | None = None) -> Markup:
    """Right answers in one color, mistakes in another, each as dark as its share of the row.

    Args:
        matrix: Counts, [classes, classes]; row = true class, column = predicted class.
        names: Class names.
        shown: Indices of the classes that are drawn; None is all.
    """
    matrix = np.asarray(matrix)
    shown = range(len(names)) if shown is None else shown
    totals = matrix.sum(axis=1)[shown]
    matrix, names = matrix[np.ix_(shown, shown)], [names[index] for index in shown]
    classes = len(names)
    cell = 34 if classes <= 14 else 24 if classes <= _NUMBERED else max(7, 840 // classes)
    font = min(12, max(6, cell - 1))
    short = [name if len(name) <= 24 else name[:23] + "…" for name in names]
    left = 26 + max(16 * 11.5 / font, *(len(name) for name in short)) * font * 0.58
    top = 26 + max(len(name) for name in short) * font * 0.44
    cells = [
        _cell(matrix, totals, row, column, names, left, top, cell) for row, column in np.argwhere(matrix > 0)
    ]
    rows = [
        tag("text", name, x=left - 8, y=top + cell * (i + 0.5) + font * 0.35, class_="right")
        for i, name in enumerate(short)
    ]
    columns = [
        tag("text", name, transform=f"translate({left + cell * (i + 0.62):.1f} {top - 7:.1f}) rotate(-45)")
        for i, name in enumerate(short)
    ]
    side = cell * classes
    frame = tag("rect", x=left, y=top, width=side, height=side, class_="frame")
    axes = tag("text", "true ↓   predicted →", x=left - 8, y=top - 10, class_="right axis")
    width = left + side + max(8.0, len(short[-1]) * font * 0.44)
    return tag(
        "svg",
        frame,
        cells,
        tag("g", rows, columns, style=f"font-size:{font}px"),
        axes,
        viewBox=f"0 0 {width:.0f} {top + side + 4:.0f}",
        style=f"max-width:{width:.0f}px",
        role="img",
        aria_label=f"Confusion matrix of {classes} classes",
        class_="confusion",
    )


def _cell(
    matrix: np.ndarray,
    totals: np.ndarray,
    row: int,
    column: int,
    names: Sequence[str],
    left: float,
    top: float,
    size: int,
) -> Markup:
    count = int(matrix[row, column])
    share = count / totals[row]
    kind = "right-answer" if row == column else "wrong-answer"
    x, y = float(left + column * size), float(top + row * size)
    gap = 1 if size > 12 else 0
    square = tag(
        "rect",
        tag("title", f"{names[row]} taken for {names[column]}: {count} of {int(totals[row])}"),
        x=x + gap / 2,
        y=y + gap / 2,
        width=size - gap,
        height=size - gap,
        class_=kind,
        fill_opacity=float(0.12 + 0.88 * share if row == column else 0.3 + 0.7 * share),
    )
    if len(names) > _NUMBERED:
        return square
    strong = " strong" if share > 0.45 else ""
    return Markup(square + tag("text", count, x=x + size / 2, y=y + size / 2 + 4, class_=f"count{strong}"))


def most_confused(matrix: np.ndarray, names: Sequence[str], most: int = 8) -> list[tuple[str, str, int, int]]:
    """(true, predicted, count, images of the true class) of the largest off-diagonal entries."""
    found = itertools.islice(_largest_mistakes(matrix), most)
    return [(names[true], names[predicted], count, total) for true, predicted, count, total in found]


def _largest_mistakes(matrix: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """(true, predicted, count, images of the true class), the largest count first."""
    wrong = np.array(matrix)
    np.fill_diagonal(wrong, 0)
    true, predicted = np.nonzero(wrong)
    counts = wrong[true, predicted]
    totals = np.sum(matrix, axis=1)
    for place in np.argsort(-counts, kind="stable"):
        row = int(true[place])
        yield row, int(predicted[place]), int(counts[place]), int(totals[row])
