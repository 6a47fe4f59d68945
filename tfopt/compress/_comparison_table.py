"""The table of a comparison: one line a model where it fits, else intervals below the values."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table

if TYPE_CHECKING:
    from tfopt.compress.comparison import Row

_ANY_WIDTH = 10_000


@final
class FittingTable(Table):
    """A table that another one stands for where it is too wide.

    Args:
        narrow: The other one.
        caption: Below the table.
    """

    def __init__(self, narrow: Table, caption: str) -> None:
        super().__init__(caption=caption)
        self.narrow = narrow

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """This table, or the narrow one."""
        wanted = Measurement.get(console, options.update(max_width=_ANY_WIDTH), self).maximum
        if wanted <= options.max_width:
            yield from super().__rich_console__(console, options)
        else:
            yield from self.narrow.__rich_console__(console, options)


def table_of(rows: Sequence["Row"], warnings: Sequence[str]) -> Table:
    """The table of `compare`."""
    caption = f"{rows[0].samples} samples, 95 % intervals (Wilson); time of one, 10 to 90 %"
    caption = "\n".join([caption, *warnings])
    narrow = Table(caption=caption, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0))
    wide = FittingTable(narrow, caption)
    has_classes = bool(rows[0].recalls)
    engines = list(dict.fromkeys(row.engine for row in reversed(rows)))
    titles = (
        "model",
        "result" if math.isnan(rows[0].accuracy) else "accuracy",
        *(["balanced"] if has_classes else []),
        "agreement",
        "size",
        "zipped",
        *(f"{engine}, ms" for engine in engines),
    )
    for title in titles:
        side = "left" if title == "model" else "right"
        wide.add_column(title, justify=side)  # type: ignore[arg-type]
        narrow.add_column(title.replace(", ", ",\n"), justify=side)  # type: ignore[arg-type]
    for row in rows:
        wide.add_row(*_cells(row, has_classes, engines, " ({})"))
        narrow.add_row(*_cells(row, has_classes, engines, "\n{}"))
    return wide


def _cells(row: "Row", has_classes: bool, engines: Sequence[str], interval: str) -> tuple[str, ...]:
    taken = row.latency
    time = _ms(taken.median_ms) + interval.format(f"{_ms(taken.p10_ms)}-{_ms(taken.p90_ms)}")
    ends = f"{100 * row.accuracy_low:.1f}-{100 * row.accuracy_high:.1f}"
    result = f"{row.accuracy:.1%}" + interval.format(ends)
    if math.isnan(row.accuracy):
        result = ", ".join(f"{name} {value:.4g}" for name, value in row.scores.items())
    return (
        row.name,
        result,
        *([f"{row.balanced_accuracy:.1%}"] if has_classes else []),
        f"{row.agreement:.1%}",
        _size(row.bytes),
        _size(row.bytes_zipped),
        *(time if row.engine == engine else "" for engine in engines),
    )


def _ms(value: float) -> str:
    """Three digits or four, so that the table keeps its width on slow machines."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def _size(count: int) -> str:
    return f"{count / 1e3:.1f} kB" if count < 1e6 else f"{count / 1e6:,.2f} MB"
