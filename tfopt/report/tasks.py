"""The sections on several labels per image, and on numbers."""

from collections.abc import Sequence

import numpy as np

from tfopt.report.charts import Scale, axis_scale
from tfopt.report.content import LabelScore, Report, TargetScore
from tfopt.report.markup import Markup, join, tag
from tfopt.report.numbers import MISSING, percent, significant, tick_texts
from tfopt.report.page import Section, data_table

_SHOWN = 60  # labels; of more, those that are found worst
_POINTS = 2000  # of a scatter chart
_BINS = 30
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 480, 300, 62, 468, 12, 250


def labels(report: Report) -> Section | None:
    """Average precision, precision, recall and a threshold of each label, the worst first."""
    if not report.labels:
        return None
    order = sorted(report.labels, key=lambda row: (not row.support, row.average_precision or 0.0))
    compared = any(row.reference is not None for row in order)
    reference = report.models[0].name if report.models else "reference"
    head = ["label", "images", *([f"AP, {reference}"] if compared else []), "average precision"]
    head += ["precision", "recall", "F1", "best threshold"]
    rows = [_label_cells(row, compared) for row in order[:_SHOWN]]
    lead = (
        f"{report.evaluated_model or 'The model'} on the {report.evaluated_on}, the label that is found "
        "worst first. Average precision judges the order of the images; precision, recall and F1 are those "
        "at a probability of 0.5. The best threshold has the best F1 on these images: choose yours on others."
    )
    if len(order) > _SHOWN:
        lead += f" {len(order) - _SHOWN} more labels are found no worse."
    return Section("labels", "Labels", data_table(head, rows), lead)


def _label_cells(row: LabelScore, compared: bool) -> list[str | Markup]:
    threshold = MISSING if row.threshold is None else significant(row.threshold)
    if not row.support:
        return [row.name, "0", *[MISSING] * (5 + compared)]
    return [
        row.name,
        f"{row.support:,}",
        *([percent(row.reference)] * compared),
        percent(row.average_precision),
        percent(row.precision),
        percent(row.recall),
        percent(row.f1),
        threshold,
    ]


def targets(report: Report) -> Section | None:
    """For each number the errors in a table, the answers over the truth, the errors by their frequency."""
    if not report.targets:
        return None
    rows: list[list[str | Markup]] = [_target_cells(target) for target in report.targets]
    head = ["number", "mean error", "of the mean", "root mean square", "90 % within", "bias", "R\u00b2"]
    charts = [tag("div", _scatter(each), _histogram(each), class_="columns") for each in report.targets]
    lead = (
        f"{report.evaluated_model or 'The model'} on the {report.evaluated_on}, in the units of the data. "
        "\u201cOf the mean\u201d is the mean absolute error of a model that always answers the mean. Bias is "
        "the mean of answer minus truth."
    )
    return Section("numbers", "Numbers", join([data_table(head, rows), *charts]), lead)


def _target_cells(target: TargetScore) -> list[str | Markup]:
    truth, answers = (np.asarray(values, float) for values in (target.truth, target.answers))
    errors = answers - truth
    if not len(errors):
        return [target.name, *[MISSING] * 6]
    spread = float(np.sum((truth - truth.mean()) ** 2))
    of_mean = MISSING if target.error_of_mean is None else significant(target.error_of_mean)
    return [
        target.name,
        significant(float(np.abs(errors).mean())),
        of_mean,
        significant(float(np.sqrt(np.mean(errors**2)))),
        significant(float(np.quantile(np.abs(errors), 0.9))),
        significant(float(errors.mean())),
        f"{1 - float(np.sum(errors**2)) / spread:.3f}" if spread else MISSING,
    ]


def _finite(target: TargetScore) -> tuple[np.ndarray, np.ndarray]:
    truth, answers = (np.asarray(values, float) for values in (target.truth, target.answers))
    keep = np.isfinite(truth) & np.isfinite(answers)
    return truth[keep], answers[keep]


def _scatter(target: TargetScore) -> Markup:
    """A point for each image: what is right from left to right, the answer upwards."""
    truth, answers = _finite(target)
    step = max(1, -(-len(truth) // _POINTS))
    x, y = (axis_scale(values.tolist(), *ends) for values, ends in _axes(truth, answers))
    low, high = max(x.low, y.low), min(x.high, y.high)
    diagonal = tag("line", x1=x(low), y1=y(low), x2=x(high), y2=y(high), class_="edge")
    look = {"r": 2.6, "class_": "f1", "fill_opacity": 0.6}
    dots = [
        tag("circle", tag("title", f"{significant(t)}: {significant(a)}"), cx=x(t), cy=y(a), **look)
        for t, a in zip(truth[::step].tolist(), answers[::step].tolist())
    ]
    return _chart(f"{target.name}: answer over truth", x, y, join([diagonal, *dots]))


def _axes(truth: np.ndarray, answers: np.ndarray) -> list[tuple[np.ndarray, tuple[float, float]]]:
    return [(truth, (_LEFT, _RIGHT)), (answers, (_BOTTOM, _TOP))]


def _histogram(target: TargetScore) -> Markup:
    """How many images have which error."""
    truth, answers = _finite(target)
    errors = answers - truth
    counts, edges = np.histogram(errors, bins=min(_BINS, max(5, int(np.sqrt(len(errors))))))
    x = axis_scale([*edges.tolist(), 0.0], _LEFT, _RIGHT)
    y = axis_scale([0.0, float(max(counts.max(initial=0), 1))], _BOTTOM, _TOP)
    bars = [
        tag(
            "rect",
            tag("title", f"{significant(low)} to {significant(high)}: {count} images"),
            x=x(low),
            y=y(float(count)),
            width=max(0.5, x(high) - x(low) - 1),
            height=y(0.0) - y(float(count)),
            class_="f1",
        )
        for low, high, count in zip(edges.tolist(), edges[1:].tolist(), counts.tolist())
        if count
    ]
    zero = tag("line", x1=x(0.0), x2=x(0.0), y1=_TOP, y2=_BOTTOM, class_="edge")
    return _chart(f"{target.name}: images by error (answer minus truth)", x, y, join([*bars, zero]))


def _chart(title: str, x: Scale, y: Scale, drawn: Markup) -> Markup:
    """A figure with both axes labeled."""
    across, upwards = x.marks(), y.marks()
    grid = [
        join(
            [
                tag("line", x1=_LEFT, x2=_RIGHT, y1=y(mark), y2=y(mark), class_="grid"),
                tag("text", text, x=_LEFT - 7, y=y(mark) + 4, class_="tick right"),
            ]
        )
        for mark, text in zip(upwards, tick_texts(upwards))
    ]
    below = [_below(x(mark), text) for mark, text in zip(across, tick_texts(across))]
    svg = tag("svg", grid, drawn, below, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=title)
    return tag("figure", tag("figcaption", title), svg, class_="chart")


def _below(x: float, text: str) -> Markup:
    return tag("text", text, x=x, y=_BOTTOM + 18, class_="tick", text_anchor="middle")


def shown_measures(report: Report) -> Sequence[tuple[str, str]]:
    """(name, value) of the results that are no accuracy, the two most important."""
    return list(report.measures.items())[:2] if report.confusion is None else []
