"""Figures without matplotlib's global state: no backend is chosen, no window opens."""

import pathlib
from collections.abc import Sequence
from typing import Any

from tfopt._optional import require


def save_lines(
    path: str | pathlib.Path,
    x: Sequence[float],
    lines: dict[str, Sequence[float]],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    steps: bool = False,
    mark: tuple[float, str] | None = None,
) -> pathlib.Path:
    """Draws lines over a common axis and saves them; the format follows the file's suffix.

    Args:
        path: File to write, such as "rate.png" or "rate.svg".
        x: Positions.
        lines: `{label: values}`; a legend appears from two lines on.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        log_x: Logarithmic horizontal axis.
        steps: Draw steps instead of slopes.
        mark: A position and its label, drawn as a vertical line.
    """
    figure_module: Any = require("matplotlib.figure", "A figure")
    figure = figure_module.Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for label, values in lines.items():
        axes.plot(x, values, label=label, linewidth=1.8, drawstyle="steps-post" if steps else "default")
    if mark is not None:
        axes.axvline(mark[0], color="0.4", linestyle="--", linewidth=1.0)
        axes.annotate(
            mark[1],
            (mark[0], 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(4, -12),
            textcoords="offset points",
        )
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_xscale("log" if log_x else "linear")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    if len(lines) > 1:
        axes.legend(frameon=False)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path
