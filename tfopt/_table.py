"""Results that print as a table."""

import abc
import html
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

_WIDTH = 130  # a comparison with intervals fits


class Printable(abc.ABC):
    """A result whose text is its table; a rich console draws the table itself."""

    @abc.abstractmethod
    def __rich__(self) -> "Table":
        """The table for a rich console."""

    def __str__(self) -> str:
        """The table as plain text."""
        from rich.console import Console  # a third of the time of `import tfopt`

        text = io.StringIO()
        Console(file=text, width=_WIDTH, color_system=None).print(self)
        return text.getvalue()

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        return f"<pre>{html.escape(str(self))}</pre>"
