"""The charts of a search's report: parallel coordinates, and the trials that no other beats."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfopt.report.charts import Scale, axis_scale
from tfopt.report.markup import Markup, tag
from tfopt.report.numbers import significant

_WIDTH, _TOP, _BOTTOM = 900, 50, 316
_FEW = 6  # different numbers up to which each gets a place of its own
_ABREAST = 7  # axes whose names fit side by side; of more, every other name is written one line higher


def parallel_coordinates(
    values: Sequence[Mapping[str, Any]], scores: Sequence[float], objective: str, best: int
) -> Markup:
    """One line per trial through an axis per setting, ending at its score; the darker the better.

    Args:
        values: Setting -> value of each trial.
        scores: Their scores, finite.
        objective: Name of the last axis.
        best: Index of the trial to draw on top.
    """
    names = [*values[0], objective]
    columns = {name: [one[name] for one in values] for name in values[0]} | {objective: list(scores)}
    xs = [70 + index * (_WIDTH - 140) / (len(names) - 1) for index in range(len(names))]
    places = {name: _axis(column) for name, column in columns.items()}
    order = sorted(range(len(scores)), key=lambda trial: (trial == best, scores[trial]))
    ranks = {trial: rank for rank, trial in enumerate(sorted(order, key=lambda trial: scores[trial]))}
    lines = []
    for trial in order:
        points = " ".join(f"{x:.1f},{places[n][0](columns[n][trial]):.1f}" for x, n in zip(xs, names))
        strength = 1.0 if trial == best else 0.12 + 0.5 * ranks[trial] / max(1, len(scores) - 1)
        text = ", ".join(f"{name} {_short(columns[name][trial])}" for name in names)
        color = "s2" if trial == best else "s1"
        line = tag("polyline", tag("title", text), points=points, class_=f"line {color}")
        lines.append(tag("g", line, opacity=strength))
    lift = 16 if len(names) > _ABREAST else 0
    heights = [_TOP - 16 - lift * (index % 2) for index in range(len(names))]
    axes = [_draw_axis(x, y, name, places[name][1]) for x, y, name in zip(xs, heights, names)]
    return tag(
        "figure",
        tag(
            "svg",
            lines,
            axes,
            viewBox=f"0 0 {_WIDTH} {_BOTTOM + 30}",
            role="img",
            aria_label=f"{len(scores)} trials, their settings and {objective}",
        ),
        class_="wide",
    )


def _axis(column: Sequence[Any]) -> tuple[Callable[[Any], float], list[tuple[float, str]]]:
    """Where a value lies on an axis, and the marks of the axis."""
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in column)
    if not numeric or len(set(column)) <= _FEW:
        kinds = sorted(set(column), key=lambda v: (isinstance(v, str), v is None, v if numeric else str(v)))
        at = {repr(kind): _spread(index, len(kinds)) for index, kind in enumerate(kinds)}
        return lambda value: at[repr(value)], [(at[repr(kind)], _short(kind)) for kind in kinds]
    low, high = min(column), max(column)
    scale = Scale(low, high, _BOTTOM, _TOP, log=low > 0 and high / low >= 20)
    marks = [low, *(mark for mark in scale.marks() if low < mark < high), high]
    texts = [(scale(mark), _short(mark)) for mark in marks]
    kept = [texts[0]]
    for place, text in texts[1:]:
        if kept[-1][0] - place >= 16:
            kept.append((place, text))
    return scale, kept


def _spread(index: int, count: int) -> float:
    return _BOTTOM - (index + 0.5) / count * (_BOTTOM - _TOP)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return significant(value)
    text = "none" if value is None else str(value)
    return text if len(text) <= 14 else text[:13] + "…"


def _draw_axis(x: float, title_y: float, name: str, marks: Sequence[tuple[float, str]]) -> Markup:
    line = tag("line", x1=x, x2=x, y1=_TOP, y2=_BOTTOM, class_="grid")
    texts = [tag("text", text, x=x + 5, y=place + 4, class_="tick left") for place, text in marks]
    title = tag("text", name.replace("_", " "), x=x, y=title_y, class_="stage")
    return tag("g", line, texts, title)


def pareto_chart(
    points: Sequence[tuple[float, float]],
    front: Sequence[int],
    best: int | None,
    names: tuple[str, str],
    write: tuple[Callable[[float], str], Callable[[float], str]],
) -> Markup:
    """Trials by what they cost and what they reach; those that none beats are joined.

    Args:
        points: (cost, result) of each trial, finite, cost > 0.
        front: Indices of those that none beats in both, by rising cost.
        best: Index of the trial with the best score, if it is one of the points.
        names: Of the cost and of the result.
        write: How to write each of them.
    """
    left, right = 70, 860
    costs, results = [cost for cost, _ in points], [result for _, result in points]
    x = axis_scale(costs, left, right, log=max(costs) / min(costs) >= 5)
    y = axis_scale(results, _BOTTOM, _TOP)
    grid = []
    # Where the values are close together, several marks are written the same: the first of them is enough.
    for text, mark in {write[1](mark): mark for mark in reversed(y.marks())}.items():
        grid.append(tag("line", x1=left, x2=right, y1=y(mark), y2=y(mark), class_="grid"))
        grid.append(tag("text", text, x=left - 8, y=y(mark) + 4, class_="tick right"))
    for text, mark in {write[0](mark): mark for mark in reversed(x.marks())}.items():
        grid.append(tag("text", text, x=x(mark), y=_BOTTOM + 18, class_="tick"))
    steps = " ".join(f"{x(points[i][0]):.1f},{y(points[i][1]):.1f}" for i in front)
    dots = []
    for index, (cost, result) in enumerate(points):
        color = "f2" if index == best else "f1" if index in front else "f0"
        text = tag("title", f"{names[0]} {write[0](cost)}, {names[1]} {write[1](result)}")
        dots.append(tag("circle", text, cx=x(cost), cy=y(result), r=5 if index == best else 4, class_=color))
    return tag(
        "figure",
        tag(
            "svg",
            grid,
            tag("polyline", points=steps, class_="line s1"),
            dots,
            tag("text", names[0], x=(left + right) / 2, y=_BOTTOM + 38, class_="stage"),
            viewBox=f"0 0 {_WIDTH} {_BOTTOM + 44}",
            role="img",
            aria_label=f"{len(front)} of {len(points)} trials are not beaten in both",
        ),
        class_="wide",
    )


def finite(metrics: Mapping[str, float], *names: str) -> bool:
    """Whether all of these were measured, and can be drawn."""
    return all(math.isfinite(metrics.get(name, math.nan)) for name in names)
