"""One number per trial out of its metrics, and the trials that no other beats in everything."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, final

from tfopt._checks import check_choice, check_number, message
from tfopt._directions import ask_for_direction, direction_of_name


@final
@dataclass(frozen=True)
class Objective:
    """What a search looks for.

    A trade-off says how much of the metric one halving of another measure is worth: `{"bytes": 0.01}` says
    that a file of half the size may cost one point of accuracy.

        score = metric - sum_k price_k * log2(metric_k)        (+ if the metric is minimized)

    Args:
        metric: Name of a metric that every trial reports.
        direction: "max" or "min"; None if the name of the metric says it: "min" for losses, errors,
            sizes and times, "max" for accuracies and other known gains.
        trade_off: Metric -> price of one doubling of it, >= 0, in units of `metric`.

    Raises:
        ValueError: If the direction is None and the name does not say what is better.

    Example:
        >>> Objective("accuracy", trade_off={"bytes": 0.01}).score({"accuracy": 0.9, "bytes": 1024})
        0.8
    """

    metric: str = "accuracy"
    direction: Literal["max", "min"] | None = None
    trade_off: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        direction = self.direction or direction_of_name(self.metric)
        if direction is None:
            call = f'objective=tfopt.tune.Objective("{self.metric}", direction'
            raise ValueError(ask_for_direction(call, self.metric, ")"))
        object.__setattr__(self, "direction", direction)
        check_choice("direction", self.direction, ("max", "min"))
        for name, price in self.trade_off.items():
            check_number(f"trade_off[{name!r}]", price, minimum=0)

    def score(self, metrics: Mapping[str, float]) -> float:
        """The number to maximize or minimize; NaN if a metric is not finite.

        Raises:
            ValueError: If the trial did not report a metric that is asked for.
        """
        for name in (self.metric, *self.trade_off):
            if name not in metrics:
                expected = "one of the metrics that a trial reports: " + ", ".join(sorted(metrics))
                raise ValueError(message("objective", expected, name))
        sign = 1 if self.direction == "min" else -1
        prices = (price * _log2(metrics[name]) for name, price in self.trade_off.items())
        return float(metrics[self.metric]) + sign * sum(prices)


def objectives_of(
    objective: "str | Objective | Sequence[str | Objective]", tuner: str
) -> tuple[Objective, ...]:
    """The objectives of a search, the most important first.

    Raises:
        ValueError: If there are none, or several for a tuner that needs one number.
    """
    given = [objective] if isinstance(objective, str | Objective) else list(objective)
    found = tuple(Objective(each) if isinstance(each, str) else each for each in given)
    if not found:
        raise ValueError(message("objective", "at least one", objective))
    if len(found) > 1 and tuner not in ("random", "grid"):
        names = [each.metric for each in found]
        fix = (
            "Take tuner='random' or 'grid' and look at `result.front`, or say what one is worth in the "
            f'other: Objective("{names[0]}", trade_off={{"{names[1]}": 0.01}}).'
        )
        raise ValueError(message("objective", f"a single one for tuner='{tuner}'", names, fix))
    return found


def not_dominated(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other beats in one number and equals or beats in all; less is better."""

    def beaten(point: Sequence[float], other: Sequence[float]) -> bool:
        return list(other) != list(point) and all(b <= a for a, b in zip(point, other))

    return [i for i, point in enumerate(points) if not any(beaten(point, other) for other in points)]


def pareto(points: Sequence[Mapping[str, float]], more: str, less: str) -> list[int]:
    """Indices of the points that no other equals or beats in both metrics, by rising cost.

    Args:
        points: Metrics of each trial.
        more: The metric of which more is better.
        less: The metric of which less is better.
    """
    usable = [i for i, p in enumerate(points) if math.isfinite(p.get(more, math.nan) + p.get(less, math.nan))]
    usable.sort(key=lambda i: (points[i][less], -points[i][more]))
    front: list[int] = []
    for i in usable:
        if not front or points[i][more] > points[front[-1]][more]:
            front.append(i)
    return front


def _log2(value: float) -> float:
    return math.log2(value) if value > 0 and math.isfinite(value) else math.nan
