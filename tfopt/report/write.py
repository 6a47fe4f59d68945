"""From a `Report` to one HTML file."""

import logging
import os
import pathlib
from collections.abc import Callable, Sequence

from tfopt._checks import check_instance
from tfopt.report import classes, galleries, sections, tasks
from tfopt.report.content import ModelRow, Report
from tfopt.report.markup import Markup, tag
from tfopt.report.numbers import bytes_text, milliseconds, percent, percent_range, seconds_text, significant
from tfopt.report.page import Section, render, save, tiles

# Title -> what makes the section.
_SECTIONS: dict[str, Callable[[Report], Section | None]] = {
    "Models": sections.models,
    "Classes": classes.classes,
    "Labels": tasks.labels,
    "Numbers": tasks.targets,
    "Training": sections.training,
    "Layers": sections.layers,
    "Confusion": sections.confusion,
    "Mistakes": galleries.mistakes,
    "Data": galleries.data,
    "Map of the images": galleries.embedding,
    "What was run": sections.run,
}
_logger = logging.getLogger(__name__)


def write(path: str | os.PathLike[str], report: Report) -> pathlib.Path:
    """Writes a report as one self-contained HTML file and returns its path.

    Pictures, charts and style are inside the file: it can be mailed, opened without a network and read
    in ten years. Sections with nothing to show are left out. A section that fails, or that `Report.failed`
    names, is shown with the reason in its place. It follows the reader's light or dark mode.

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
    made = (_section(title, make, report) for title, make in _SECTIONS.items())
    shown = [section for section in made if section is not None]
    return save(path, render(report.title, report.subtitle, _summary(report), shown))


def _section(title: str, make: Callable[[Report], Section | None], report: Report) -> Section | None:
    """One section, or the reason why it is missing: the rest of the page does not depend on it."""
    if title in report.failed:
        return _missing(title, report.failed[title])
    try:
        return make(report)
    except Exception as error:
        _logger.warning("the report has no section %r: %s", title, error, exc_info=True)
        return _missing(title, failure_text(error))


def _missing(title: str, reason: str) -> Section:
    lead = "This section could not be made. Models, files and the other sections are not affected."
    return Section(title.lower().replace(" ", "-"), title, tag("p", reason, class_="failed"), lead)


def failure_text(error: Exception) -> str:
    """What went wrong, in one line: the first of the message, behind the kind of error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


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
        rival = _counterpart(report.models) or ModelRow(first.name)
        facts += [(f"{name}, {last.name}", value, "") for name, value in tasks.shown_measures(report)]
        if last.accuracy is not None and not facts:
            note = f"95 % interval {percent_range(last.interval)}" if last.interval else ""
            facts.append((f"Accuracy, {last.name}", percent(last.accuracy), note))
        if last.bytes is not None:
            smaller = _ratio(rival.bytes, last.bytes, f"smaller than {rival.name}")
            facts.append(("File size", bytes_text(last.bytes), smaller))
        if last.latency_ms is not None:
            faster = _ratio(rival.latency_ms, last.latency_ms, f"faster than {rival.name}")
            engine = [last.engine] if last.engine else []
            notes = [faster or f"{rival.name}: {milliseconds(rival.latency_ms)}"] if rival.latency_ms else []
            facts.append(("Latency, one image", milliseconds(last.latency_ms), ", ".join([*notes, *engine])))
        if last.agreement is not None and reference is first:
            facts.append(("Agreement", percent(last.agreement), f"same answer as {first.name}"))
    seconds = report.seconds or sum(stage.seconds or 0 for stage in report.stages)
    if seconds:
        epochs = sum(stage.epochs for stage in report.stages)
        stages = f"{len(report.stages)} stage" + "s" * (len(report.stages) != 1)
        note = f"{epochs} epoch{'s' * (epochs != 1)} in {stages}" if epochs else ""
        facts.append(("Whole run" if report.seconds else "Training", seconds_text(seconds), note))
    return facts


def _counterpart(rows: Sequence[ModelRow]) -> ModelRow | None:
    """The first row that the last one can fairly be compared with: it was run by the same engine."""
    return next((row for row in rows[:-1] if row.engine == rows[-1].engine), None)


def _ratio(before: float | None, after: float, word: str) -> str:
    """How many times smaller or faster, where it is."""
    if not before or not after or before / after < 1.05:
        return ""
    return f"{significant(before / after, 2)}× {word}"
