"""The shell of every page: heading, table of contents, style and sections in one file."""

import os
import pathlib
import string
from collections.abc import Sequence
from dataclasses import dataclass

from tfopt.report.markup import Markup, join, tag

_FOLDER = pathlib.Path(__file__).parent


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Args:
        anchor: Identifier in the page's address.
        title: Heading, also in the table of contents.
        body: Content.
        lead: A sentence below the heading that says how to read what follows.
    """

    anchor: str
    title: str
    body: Markup
    lead: str = ""


def render(title: str, subtitle: str, summary: Markup, sections: Sequence[Section]) -> str:
    """The page as HTML text, with no reference to anything outside it."""
    template = string.Template((_FOLDER / "page.html").read_text(encoding="utf-8"))
    contents = [tag("a", section.title, href=f"#{section.anchor}") for section in sections]
    return template.substitute(
        title=join([title]),
        subtitle=join([subtitle]),
        style=(_FOLDER / "style.css").read_text(encoding="utf-8"),
        contents=join(contents),
        summary=summary,
        sections=join(_section(section) for section in sections),
    )


def save(path: str | os.PathLike[str], text: str) -> pathlib.Path:
    """Writes the page, replacing an older one only when the new one is complete."""
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, target)
    return target


def _section(section: Section) -> Markup:
    lead = tag("p", section.lead, class_="lead") if section.lead else None
    return tag("section", tag("h2", section.title), lead, section.body, id=section.anchor)


def data_table(head: Sequence[str], rows: Sequence[Sequence[str | Markup]], numeric_from: int = 1) -> Markup:
    """A table whose columns from `numeric_from` on are numbers, aligned to the right."""
    cells = [
        [
            tag("td" if column else "th", cell, class_="number" if column >= numeric_from else None)
            for column, cell in enumerate(row)
        ]
        for row in rows
    ]
    heading = [tag("th", text, class_="number" if i >= numeric_from else None) for i, text in enumerate(head)]
    table = tag("table", tag("thead", tag("tr", heading)), tag("tbody", (tag("tr", row) for row in cells)))
    return tag("div", table, class_="scroll")


def tiles(facts: Sequence[tuple[str, str, str]]) -> Markup:
    """(label, value, note) of the few numbers that matter."""
    return tag(
        "dl",
        [
            tag("div", tag("dt", label), tag("dd", value, class_="value"), tag("dd", note, class_="note"))
            for label, value, note in facts
        ],
        class_="tiles",
    )
