"""`find_batch_size`: the largest batch that fits, and the smallest at which speed no longer grows."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, final

import keras
from rich.table import Table

from tfopt._checks import check_integer, check_number
from tfopt._table import Printable
from tfopt.tune.measuring import Measurement, Measurer
from tfopt.tune.subject import Subject
from tfopt.tune.training_setting import TrainingSetting

_SATURATED = 0.95  # of the best speed
_PRECISION = 8  # the search ends when the largest batch is known to one part in so many


@final
@dataclasses.dataclass(frozen=True)
class BatchSizes(Printable):
    """What `find_batch_size` found; prints as a table.

    Args:
        largest: The largest batch size that trained.
        saturating: The smallest with at least 95 % of the best speed measured.
        limited_by: What stopped the search: "memory", "time", "crash" or "max_batch_size".
        measurements: Every size that was tried, in rising order.
    """

    largest: int
    saturating: int
    limited_by: str
    measurements: Sequence[Measurement]

    def __rich__(self) -> Table:
        """The table for a rich console."""
        caption = f"largest {self.largest}, limited by {self.limited_by}; {self.saturating} is fast enough"
        table = Table(caption=caption)
        for title in ("batch size", "examples/s", "result"):
            table.add_column(title, justify="left" if title == "result" else "right")
        for one in self.measurements:
            rate = f"{one.rate:,.0f}" if one.rate else ""
            table.add_row(str(one.setting.batch_size), rate, one.status)
        return table


def find_batch_size(
    model: keras.Model | Callable[[], keras.Model],
    data: Any = None,
    *,
    max_batch_size: int = 4096,
    limit_seconds: float = 60.0,
    memory_limit: int | None = None,
) -> BatchSizes:
    """Measures which batch sizes fit into memory, and from which on larger ones train no faster.

    Doubles the batch until something gives, then halves the interval. Everything runs in processes of
    their own, a new one after every failure: this process allocates nothing, and an out-of-memory error
    leaves no broken allocator behind. Use `saturating` for speed: larger batches only make fewer updates
    of the same data. Do not use it for a model under several replicas: measure one replica's share.

    Args:
        model: A compiled model, or a function of a module that returns one.
        data: Arrays, a batched dataset, or a function (batch size) -> dataset; None takes random numbers.
        max_batch_size: Where to stop, >= 1.
        limit_seconds: Time for one batch size, compilation included, > 0.
        memory_limit: Bytes of main memory that training may take; None: 90 % of what is free. A GPU has
            its own limit, its memory.

    Raises:
        ValueError: If the model is not compiled.
        RuntimeError: If not even a batch of one trains; holds the error.

    Example:
        >>> sizes = find_batch_size(model, max_batch_size=256)
        >>> print(sizes.largest, sizes.saturating)
    """
    check_integer("max_batch_size", max_batch_size, minimum=1)
    check_number("limit_seconds", limit_seconds, minimum=0, open_minimum=True)
    found: dict[int, Measurement] = {}
    with (
        Subject(model, data) as subject,
        Measurer(subject, limit_seconds=limit_seconds, memory_limit=memory_limit) as measurer,
    ):

        def fits(size: int) -> bool:
            found[size] = measurer.measure(TrainingSetting(batch_size=size), seconds=0.5)
            return found[size].status == "ok"

        largest, failed = _largest(fits, max_batch_size)
    rows = [found[size] for size in sorted(found)]
    if largest == 0:
        raise RuntimeError(f"A batch of one does not train: {rows[0].status}. {rows[0].detail}")
    enough = _SATURATED * max(row.rate for row in rows)
    reasons = {"out of memory": "memory", "too slow": "time", "crashed": "crash"}
    limit = "max_batch_size" if failed is None else reasons[found[failed].status]
    saturating = next(row.setting.batch_size for row in rows if row.rate >= enough)
    return BatchSizes(largest, saturating, limit, rows)


def _largest(fits: Callable[[int], bool], most: int) -> tuple[int, int | None]:
    """(largest size that fits, smallest that was seen not to), by doubling and then halving."""
    good, bad = 0, None
    size = 1
    while bad is None and good < most:
        if fits(size):
            good, size = size, min(2 * size, most)
        else:
            bad = size
    while bad is not None and bad - good > max(1, good // _PRECISION):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good, bad
