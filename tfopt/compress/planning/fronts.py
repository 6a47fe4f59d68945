"""Plans for several budgets of one model, from one search: what each size costs in accuracy."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import keras

from tfopt._checks import message
from tfopt._table import Printable
from tfopt.compress._score import Metric
from tfopt.compress.planning.budget import Budget
from tfopt.compress.planning.measuring import Measurement
from tfopt.compress.planning.planner import Plan, Planner, UnreachableBudgetError

if TYPE_CHECKING:
    from rich.table import Table


@final
@dataclass(frozen=True)
class Front(Printable):
    """What `front` found; prints as a table.

    Attributes:
        plans: A `Plan` for each budget that can be reached, in the order given: carry out those you want.
        refused: The budgets that cannot be reached, each with the nearest that was measured.
    """

    plans: tuple[Plan, ...]
    refused: tuple[tuple[Budget, str], ...]

    def __rich__(self) -> "Table":
        """The table for a rich console."""
        from rich.table import Table

        whole = self.plans[0].float_score
        table = Table(caption=f"scores without training; the float model has {whole:.4g}")
        for title in ("limits", "channels", "zeros", "precision", "bytes", "zipped", "ms", "score"):
            table.add_column(title, justify="left" if title in ("limits", "precision") else "right")
        for plan in self.plans:
            found = plan.expected
            zeros = f"{len(plan.sparsities)} layers" if plan.sparsities else ""
            table.add_row(
                *(_text(plan.budget), f"{plan.keep:.0%}", zeros, plan.precision or "float32"),
                *(f"{found.bytes:,}", f"{found.zipped:,}", f"{found.latency_ms:.3g}", f"{found.score:.4g}"),
            )
        for budget, _ in self.refused:
            table.add_row(_text(budget), *["out of reach", *[""] * 6])
        return table


def front(
    model: keras.Model,
    data: Any,
    budgets: Sequence[Budget],
    *,
    judge: Any = None,
    metric: Metric | None = None,
    on_measured: Callable[[str, Measurement], Any] | None = None,
) -> Front:
    """Plans one model for several budgets, and measures each form of it once.

    Args:
        model: As in `plan`.
        data: As in `plan`.
        budgets: One or more.
        judge: As in `plan`.
        metric: As in `plan`.
        on_measured: As in `plan`.

    Returns:
        A `Front`: `print` it, then `carry_out` the plans that you want.

    Raises:
        ValueError: If there is no budget, or none that can be reached.

    Example:
        >>> budgets = [tfopt.compress.Budget(bytes=size) for size in ("300k", "150k", "80k")]
        >>> found = tfopt.compress.front(model, validation, budgets)
        >>> print(found)
    """
    if not budgets:
        raise ValueError(message("budgets", "one `Budget` or more", list(budgets)))
    planner = Planner(model, data, judge=judge, metric=metric)
    plans: list[Plan] = []
    refused: list[tuple[Budget, UnreachableBudgetError]] = []
    for budget in budgets:
        try:
            plans.append(planner.plan(budget, on_measured=on_measured))
        except UnreachableBudgetError as error:
            refused.append((budget, error))
    if not plans:
        raise refused[0][1]
    return Front(tuple(plans), tuple((budget, str(error)) for budget, error in refused))


def _text(budget: Budget) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in budget.limits().items())
