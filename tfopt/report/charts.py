"""Charts as inline SVG: they follow the page's colors, scale with it and can be read as text."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tfopt.report.markup import Markup, join, tag
from tfopt.report.numbers import decades, finite, percent, significant, tick_texts, ticks


@dataclass(frozen=True)
class Scale:
    """Maps data to pixels, linearly or by logarithm."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        position = math.log(value) if self.log else value
        share = 0.5 if high == low else (position - low) / (high - low)
        return self.start + share * (self.stop - self.start)

    def marks(self) -> list[float]:
        """Where the axis is labeled."""
        return decades(self.low, self.high) if self.log else ticks(self.low, self.high)


def axis_scale(
    values: Sequence[float], start: float, stop: float, *, log: bool = False, highest: float = math.inf
) -> Scale:
    """A scale that holds all values with a little air, ending on round numbers where it is linear."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if log:
        return Scale(low / 1.3, high * 1.3, start, stop, True)
    if high == low:
        low, high = low - (abs(low) * 0.1 or 0.5), min(high + (abs(high) * 0.1 or 0.5), highest)
    step = np.diff(ticks(low, high))[0]
    top = math.ceil(high / step - 1e-9) * step
    return Scale(math.floor(low / step + 1e-9) * step, min(top, highest), start, stop)


@dataclass(frozen=True)
class Line:
    """One named series: its values in each stage, none where the stage does not have it."""

    name: str
    segments: Sequence[Sequence[float]]
    color: int = 1  # --s0 to --s5 of style.css

    def values(self) -> list[float]:
        """All values, one after the other."""
        return [float(value) for segment in self.segments for value in segment]


def stage_chart(
    title: str,
    lines: Sequence[Line],
    stages: Sequence[tuple[str, int]],
    *,
    share: bool = False,
    log: bool = False,
) -> Markup:
    """A metric over the epochs of consecutive stages, each with its own stretch of the horizontal axis.

    Args:
        title: What is drawn, with its unit.
        lines: One or more series with as many segments as there are stages.
        stages: (name, epochs) of each stage. A short stage still gets room for its name.
        share: The values are fractions, to be written as percentages.
        log: Logarithmic vertical axis; every value must be positive.
    """
    width, height, left, right, top, bottom = 480, 236, 52, 362, 12, 190
    write = percent if share else significant
    values = finite(value for line in lines for value in line.values())
    y = axis_scale(values, bottom, top, log=log, highest=1.0 if share else math.inf)
    spans = _spans([epochs for _, epochs in stages], left, right)
    marks = y.marks()
    grid = [_tick(y(mark), left, right, text) for mark, text in zip(marks, tick_texts(marks, share))]
    named = len(lines) > 1
    drawn = [_line(line, y, stages, spans, write) for line in lines]
    ends = _ends(lines, y, write, named)
    return tag(
        "figure",
        tag("figcaption", title),
        tag(
            "svg",
            grid,
            [_stage(*stage, span, top, bottom) for stage, span in zip(stages, spans)],
            tag("text", "1", x=_epoch_x(spans[0], 1, stages[0][1]), y=bottom + 18, class_="tick"),
            drawn,
            [tag("text", text, x=right + 8, y=at + 4, class_=f"end t{color}") for color, at, text in ends],
            None if values else tag("text", "no finite value", x=207, y=105, class_="tick"),
            viewBox=f"0 0 {width} {height}",
            role="img",
            aria_label=f"{title}: " + ", ".join(text for _, _, text in ends),
        ),
        class_="chart",
    )


def _spans(epochs: Sequence[int], left: float, right: float) -> list[tuple[float, float]]:
    """Where each stage begins and ends; none gets less than a sixth of an even share's worth of room."""
    least = sum(epochs) * 0.16
    widths = [max(count, least, 1) for count in epochs]
    edges = left + np.cumsum([0, *widths]) / sum(widths) * (right - left)
    return list(zip(edges[:-1].tolist(), edges[1:].tolist()))


def _epoch_x(span: tuple[float, float], epoch: int, epochs: int) -> float:
    air = 7
    return Scale(1, epochs, span[0] + air, span[1] - air)(epoch)


def _tick(y: float, left: float, right: float, text: str) -> Markup:
    line = tag("line", x1=left, x2=right, y1=y, y2=y, class_="grid")
    return join([line, tag("text", text, x=left - 7, y=y + 4, class_="tick right")])


def _stage(name: str, epochs: int, span: tuple[float, float], top: float, bottom: float) -> Markup:
    middle = (span[0] + span[1]) / 2
    room = max(3, int((span[1] - span[0]) / 6.3))
    short = name if len(name) <= room else name[: room - 1] + "…"
    edge = tag("line", x1=span[1], x2=span[1], y1=top, y2=bottom + 4, class_="edge")
    last = tag("text", epochs, x=_epoch_x(span, epochs, epochs), y=bottom + 18, class_="tick")
    full = tag("title", f"{name}, epochs 1 to {epochs}")
    label = tag("text", short, full, x=middle, y=bottom + 36, class_="stage")
    return join([edge, last, label])


def _line(
    line: Line,
    y: Scale,
    stages: Sequence[tuple[str, int]],
    spans: Sequence[tuple[float, float]],
    write: Callable[[float], str],
) -> Markup:
    """Polylines that break at stages and at values that are not finite; a dot for every value."""
    parts = []
    for segment, (_, epochs), span in zip(line.segments, stages, spans):
        at = [_epoch_x(span, epoch + 1, epochs) for epoch in range(len(segment))]
        run: list[str] = []
        for x, value in zip([*at, 0.0], [*segment, math.nan]):
            if math.isfinite(value):
                run.append(f"{x:.1f},{y(value):.1f}")
            elif run:
                parts.append(tag("polyline", points=" ".join(run), class_=f"line s{line.color}"))
                run = []
        for epoch, (x, value) in enumerate(zip(at, segment), 1):
            if math.isfinite(value):
                title = tag("title", f"{line.name}, epoch {epoch}: {write(value)}")
                radius = 2.2 if len(segment) <= 20 else 1.2
                parts.append(tag("circle", title, cx=x, cy=y(value), r=radius, class_=f"dot f{line.color}"))
    return join(parts)


def _ends(
    lines: Sequence[Line], y: Scale, write: Callable[[float], str], named: bool
) -> list[tuple[int, float, str]]:
    """Labels at the last value of each line, pushed apart so that none covers another."""
    ends = []
    for line in lines:
        values = line.values()
        if last := finite(values)[-1:]:
            text = f"{write(last[0])} {line.name}" if named else write(last[0])
            ends.append((line.color, y(last[0]), text if math.isfinite(values[-1]) else f"{text}, then NaN"))
    ends.sort(key=lambda end: end[1])
    for lower in range(1, len(ends)):
        color, at, text = ends[lower]
        ends[lower] = (color, max(at, ends[lower - 1][1] + 15), text)
    return ends


def interval_mark(value: float | None, interval: tuple[float, float], span: tuple[float, float]) -> Markup:
    """A dot with whiskers on a scale shared by the rows of a table."""
    width, height, middle = 130.0, 16.0, 8.0
    x = Scale(*span, 6.0, width - 6)
    low, high = x(interval[0]), x(interval[1])
    return tag(
        "svg",
        tag("line", x1=0.0, x2=width, y1=middle, y2=middle, class_="grid"),
        tag("line", x1=low, x2=high, y1=middle, y2=middle, class_="whisker s1"),
        None if value is None else tag("circle", cx=x(value), cy=middle, r=4, class_="f1"),
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        class_="interval",
        aria_hidden="true",
    )
