"""Points in the plane."""

from collections.abc import Sequence

import numpy as np

from tfopt.report.charts import Scale
from tfopt.report.markup import Markup, tag

_NAMED = 30  # groups up to which names can be read; beyond it they show on pointing


def scatter(points: np.ndarray, groups: Sequence[int], names: Sequence[str]) -> Markup:
    """Points with no axes (an embedding has no units), each group named at its middle while there is room."""
    width, height, air = 900, 620, 24
    points, labels = np.asarray(points, "float64"), np.asarray(groups)
    keep = np.isfinite(points).all(axis=1)
    points, labels = points[keep], labels[keep]
    low, high = points.min(axis=0, initial=np.inf), points.max(axis=0, initial=-np.inf)
    x, y = Scale(low[0], high[0], air, width - air), Scale(low[1], high[1], height - air, air)
    dots = [
        tag("circle", tag("title", names[g]), cx=x(px), cy=y(py), r=3.5, style=f"fill:{class_color(g)}")
        for (px, py), g in zip(points.tolist(), labels.tolist())
    ]
    middles = [(g, *np.median(points[labels == g], axis=0)) for g in sorted(set(labels.tolist()))]
    texts = [
        tag("text", names[g], x=x(px), y=y(py), class_="middle")
        for g, px, py in middles
        if len(middles) <= _NAMED
    ]
    return tag(
        "figure",
        tag("svg", dots, texts, viewBox=f"0 0 {width} {height}", role="img", aria_label="Map of the images"),
        class_="wide",
    )


def class_color(index: int) -> str:
    """A color for one of many classes: neighbors in the list are far apart on the wheel."""
    return f"hsl({index * 137.5 % 360:.0f} 58% {(48, 58, 52)[index % 3]}%)"
