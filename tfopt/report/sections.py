"""The sections made of tables and charts, each a function of the report's data."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfopt.report.charts import Line, interval_mark, stage_chart
from tfopt.report.confusion import confusion_chart, drawn_classes, most_confused
from tfopt.report.content import ModelRow, Report, Stage
from tfopt.report.markup import Markup, join, tag
from tfopt.report.numbers import (
    MISSING,
    bytes_text,
    finite,
    milliseconds,
    percent,
    percent_range,
    seconds_text,
    significant,
)
from tfopt.report.page import Section, data_table

_METRICS = ("loss", "accuracy", "learning_rate", "images_per_second")
_TITLES = {
    "images_per_second": "Throughput, images per second",
    "data_wait": "Share of time waiting for data",
}


def models(report: Report) -> Section | None:
    """The comparison table, the reference first."""
    if not report.models:
        return None
    bounds = [bound for row in report.models if row.interval for bound in row.interval]
    span = (min(bounds), max(bounds)) if bounds else (0.0, 1.0)
    engines = _engines(report.models)
    balanced = any(row.balanced_accuracy is not None for row in report.models)
    latencies = [f"latency, {engine}" if engine else "latency, 1 image" for engine in engines]
    titles = ["balanced"] * balanced + ["agreement", "file", "zipped", *latencies]
    numbers = all(row.accuracy is None for row in report.models) and any(row.result for row in report.models)
    rows = [_model_cells(row, span, balanced, engines, numbers) for row in report.models]
    body = data_table(["model", *(["result"] if numbers else ["accuracy", "95 % interval"]), *titles], rows)
    lead = f"{'Result' if numbers else 'Accuracy'} on the {report.evaluated_on}. "
    lead += "Balanced accuracy is the mean of the classes' recalls. " * balanced
    lead += (
        f"Agreement is the share of images on which a model answers as {report.models[0].name} does. Latency "
        "is the median time for one image, with its spread below"
    )
    lead += "; only times in the same column can be compared." if len(engines) > 1 else "."
    return Section("models", "Models", body, lead)


def _engines(rows: Sequence[ModelRow]) -> list[str]:
    """What ran the models, that of the last one first."""
    return list(dict.fromkeys(row.engine for row in reversed(rows) if row.latency_ms is not None)) or [""]


def _model_cells(
    row: ModelRow, span: tuple[float, float], balanced: bool, engines: Sequence[str], numbers: bool
) -> list[Markup | str]:
    note = tag("small", row.note) if row.note else None
    mark = None if row.interval is None else interval_mark(row.accuracy, row.interval, span)
    spread = None
    if row.latency_spread is not None:
        low, high = (significant(value) for value in row.latency_spread)
        spread = tag("small", f"{low}–{high}")
    latency = join([milliseconds(row.latency_ms), spread])
    interval = join([mark, tag("small", percent_range(row.interval))]) if mark else MISSING
    return [
        join([row.name, note]),
        *([row.result or MISSING] if numbers else [percent(row.accuracy), interval]),
        *([percent(row.balanced_accuracy)] if balanced else []),
        percent(row.agreement),
        bytes_text(row.bytes),
        bytes_text(row.zipped_bytes),
        *(latency if row.engine == engine else MISSING for engine in engines),
    ]


def layers(report: Report) -> Section | None:
    """What compression left of each layer."""
    if not report.layers:
        return None
    rows = [
        [
            each.name,
            _before_after(each.channels),
            _before_after(each.weights),
            percent(each.zeros) if each.zeros else MISSING,
        ]
        for each in report.layers
    ]
    before, after = (sum(each.weights[place] for each in report.layers) for place in (0, 1))
    lead = f"Layers that lost channels or weights: of their {before:,} weights {after:,} are left, zeros too."
    return Section("layers", "Layers", data_table(["layer", "channels", "weights", "zeros"], rows), lead)


def _before_after(counts: tuple[int, int]) -> str:
    return f"{counts[0]:,}" if counts[0] == counts[1] else f"{counts[0]:,} → {counts[1]:,}"


def training(report: Report) -> Section | None:
    """One chart per metric over all stages."""
    stages = [stage for stage in report.stages if stage.epochs]
    if not stages:
        return None
    found = {key.removeprefix("val_") for stage in stages for key in stage.history}
    found -= {"batch_size"} if _is_constant("batch_size", stages) else set()
    keys = [key for key in _METRICS if key in found] + sorted(found - set(_METRICS))
    charts = [_metric_chart(key, report) for key in keys]
    lead = "By epoch, each stage with a count of its own."
    times = [f"{stage.name} {seconds_text(stage.seconds)}" for stage in stages if stage.seconds is not None]
    if times:
        lead += f" Time spent: {', '.join(times)}."
    learned = [stage.name for stage in stages if stage.learned_validation]
    if learned:
        lead += (
            f" The classifier had learned from the validation images before {' and '.join(learned)}: their "
            "validation curves there show how the training went, not how good the model is on new images."
        )
    return Section("training", "Training", tag("div", charts, class_="columns"), lead)


def _is_constant(key: str, stages: Sequence[Stage]) -> bool:
    """Whether a value hardly moves: the last batch of an epoch is smaller, which is no ramp."""
    values = finite(value for stage in stages for value in stage.history.get(key, ()))
    return not values or max(values) < 1.05 * min(values)


def _metric_chart(key: str, report: Report) -> Markup:
    stages = [stage for stage in report.stages if stage.epochs]
    series = [
        (name, full_key, color)
        for name, full_key, color in (("training", key, 0), ("validation", f"val_{key}", 1))
        if any(full_key in stage.history for stage in stages)
    ]
    lines = [
        Line(name, [stage.history.get(full_key, ()) for stage in stages], color if len(series) > 1 else 1)
        for name, full_key, color in series
    ]
    values = finite(value for line in lines for value in line.values())
    wide = min(values, default=0.0) > 0 and max(values) > 30 * min(values)
    log = wide and key in ("learning_rate", "images_per_second")
    share = key.endswith("accuracy") or key == "sparsity"
    title = _TITLES.get(key, key.replace("_", " ").capitalize()) + (", logarithmic" if log else "")
    shape = [(stage.name, stage.epochs) for stage in stages]
    return stage_chart(title, lines, shape, share=share, log=log)


def confusion(report: Report) -> Section | None:
    """Which classes are taken for which."""
    if report.confusion is None:
        return None
    matrix = np.asarray(report.confusion)
    total, right = int(matrix.sum()), int(np.trace(matrix))
    shown = drawn_classes(matrix)
    is_part = len(shown) < len(matrix)
    pairs = most_confused(matrix, report.class_names, 24 if is_part else 8)
    rows = [[f"{true} → {answer}", str(count), f"of {of}"] for true, answer, count, of in pairs]
    chart = confusion_chart(matrix, report.class_names, shown) if shown else None
    table = data_table(["true → predicted", "images", ""], rows) if rows else None
    listed = tag("div", tag("h3", "Taken for another most often"), table) if rows else None
    share = percent(right / total if total else None)
    lead = f"{right:,} of {total:,} {report.evaluated_on} are right ({share}){by_model(report)}."
    if is_part and shown:
        lead += f" Of {len(matrix):,} classes, the {len(shown)} with the largest single mistakes are drawn."
    return Section("confusion", "Confusion", tag("div", chart, listed, class_="beside"), lead)


def by_model(report: Report) -> str:
    """The end of a sentence about results: which model they belong to."""
    return f" by {report.evaluated_model}" if report.evaluated_model else ""


def run(report: Report) -> Section | None:
    """Every option and the machine, so that the run can be repeated."""
    tables = [
        tag("div", tag("h3", title), _facts(facts))
        for title, facts in (("Options", report.options), ("Environment", report.environment))
        if facts
    ]
    if not tables:
        return None
    return Section("run", "What was run", tag("div", tables, class_="columns"))


def _facts(facts: Mapping[str, Any]) -> Markup:
    rows = [tag("tr", tag("th", key), tag("td", str(value))) for key, value in facts.items()]
    return tag("table", tag("tbody", rows), class_="facts")
