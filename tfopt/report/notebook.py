"""A report in the notebook that made it."""

import pathlib

from tfopt.report.markup import tag


def framed(page: pathlib.Path) -> str:
    """A page in a frame of its own, so that neither its style nor the notebook's reaches the other.

    Args:
        page: An HTML file without links to other files.
    """
    return tag("iframe", srcdoc=page.read_text(encoding="utf-8"), width="100%", height="700")
