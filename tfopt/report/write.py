"""From a `Report` to one HTML file."""

import os
import pathlib

from tfopt._checks import check_instance
from tfopt.report import galleries, sections
from tfopt.report.content import ModelRow, Report
from tfopt.report.markup import Markup, tag
from tfopt.report.numbers import bytes_text, milliseconds, percent, percent_range, seconds_text, significant
from tfopt.report.page import render, save, tiles

_ORDER = (
    sections.models,
    sections.training,
    sections.confusion,
    galleries.mistakes,
    galleries.data,
    galleries.embedding,
    sections.run,
)


def write(path: str | os.PathLike[str], report: Report) -> pathlib.Path:
    """Writes a report as one self-contained HTML file and returns its path.

    Pictures, charts and style are inside the file: it can be mailed, opened without a network and read
    in ten years. Sections with nothing to show are left out. It follows the reader's light or dark mode.

    Args:
        path: File to write; missing folders are made, an existing file is replaced when the new one is
            complete.
        report: What to show.

    Raises:
        TypeError: If `report` is no `Report`.
        OSError: If the file cannot be written.

    Example:
        >>> from tfopt.report import ModelRow, Report, write
        >>> rows = [ModelRow("float32", accuracy=0.97), ModelRow("int8", accuracy=0.96, agreement=0.99)]
        >>> write("report.html", Report("Flowers", ["daisy", "tulip"], models=rows)).name
        'report.html'
    """
    check_instance("report", report, Report)
    shown = [section for section in (make(report) for make in _ORDER) if section is not None]
    return save(path, render(report.title, report.subtitle, _summary(report), shown))


def _summary(report: Report) -> Markup:
    facts = headline(report)
    notes = tag("ul", [tag("li", note) for note in report.notes], class_="notes") if report.notes else None
    return Markup((tiles(facts) if facts else "") + (notes or ""))


def headline(report: Report) -> list[tuple[str, str, str]]:
    """(label, value, note) of the numbers that matter: those of the last model, against the first."""
    facts = []
    if report.models:
        first, last = report.models[0], report.models[-1]
        reference = first if len(report.models) > 1 else ModelRow(first.name)
        if last.accuracy is not None:
            note = f"95 % interval {percent_range(last.interval)}" if last.interval else ""
            facts.append((f"Accuracy, {last.name}", percent(last.accuracy), note))
        if last.bytes is not None:
            facts.append(
                ("File size", bytes_text(last.bytes), _ratio(reference.bytes, last.bytes, "smaller"))
            )
        if last.latency_ms is not None:
            note = _ratio(reference.latency_ms, last.latency_ms, "faster")
            facts.append(("Latency, one image", milliseconds(last.latency_ms), note))
        if last.agreement is not None and reference is first:
            facts.append(("Agreement", percent(last.agreement), f"same answer as {first.name}"))
    seconds = report.seconds or sum(stage.seconds or 0 for stage in report.stages)
    if seconds:
        epochs = sum(stage.epochs for stage in report.stages)
        stages = f"{len(report.stages)} stage" + "s" * (len(report.stages) != 1)
        note = f"{epochs} epoch{'s' * (epochs != 1)} in {stages}" if epochs else ""
        facts.append(("Whole run" if report.seconds else "Training", seconds_text(seconds), note))
    return facts


def _ratio(before: float | None, after: float, word: str) -> str:
    """How many times smaller or faster, where it is."""
    if not before or not after or before / after < 1.05:
        return ""
    return f"{significant(before / after, 2)}× {word}"
