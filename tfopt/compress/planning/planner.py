"""Chooses width, sparsity of each layer and precision under a budget, each step measured on the real file."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import keras
import numpy as np

from tfopt._checks import check_instance
from tfopt.compress._ports import check_model
from tfopt.compress._score import Metric
from tfopt.compress.planning.budget import Budget
from tfopt.compress.planning.candidates import Candidates, Key, named
from tfopt.compress.planning.measuring import PRECISIONS, Judge, Measurement, judges, taking_pixels

_logger = logging.getLogger(__name__)
LEAST_KEEP = 0.1
STEPS = 4  # of a bisection: widths and multipliers are known to a sixteenth of their interval
MOST_CANDIDATES = len(PRECISIONS) * 2 * (STEPS + 1)  # whole, then less of it, until the limits hold


@final
class UnreachableBudgetError(ValueError):
    """No form of the model keeps the limits.

    Args:
        limits: What was asked for, in words.
        nearest: The form that comes nearest, in words.
    """

    def __init__(self, limits: str, nearest: str) -> None:
        super().__init__(
            f"`budget` must be reachable. Received: {limits}. The nearest that was measured is {nearest}. "
            "Raise the limits to that, or start from a smaller model or image size."
        )
        self.limits, self.nearest = limits, nearest


@final
@dataclass(frozen=True)
class Plan:
    """What `carry_out` will do.

    Attributes:
        model: The float model; with the scale of its pixels in front, if that had to be found.
        budget: The limits.
        keep: Share of the channels that stays.
        sparsities: Share of zeros of each kernel that is pruned, by name.
        precision: As `export(quantization=)`.
        expected: The measurement of the file without any training: its costs are those to come, its score is
            a lower bound of what training gives back.
        float_score: Of the float model.
        tried: All candidates, with what was measured on the data that chose.
        chooser: The data by which candidates were chosen.
        judge: The data by which the result is judged.
    """

    model: keras.Model
    budget: Budget
    keep: float
    sparsities: dict[str, float]
    precision: str | None
    expected: Measurement
    float_score: float
    tried: tuple[tuple[str, Measurement], ...]
    chooser: Judge
    judge: Judge

    def __str__(self) -> str:
        """The decisions, and what they are expected to cost."""
        lines = [f"channels kept: {self.keep:.0%}, precision: {self.precision or 'float32'}; {self.expected}"]
        return "\n".join([*lines, *(f"{name}: {value:.0%} zeros" for name, value in self.sparsities.items())])


def plan(
    model: keras.Model,
    data: Any,
    budget: Budget,
    *,
    judge: Any = None,
    metric: Metric | None = None,
    on_measured: Callable[[str, Measurement], Any] | None = None,
) -> Plan:
    """Finds the width, the sparsity of each layer and the precision that keep the limits and lose the least.

    For each precision, the widest model that keeps the limits is found by bisection; each step slims, refits
    and exports the model and measures the file, as NetAdapt does. Where only the zipped size is too large,
    layers are pruned first, by the multiplier of Lagrange that trades the measured harm of each layer
    against its zeros. Of what keeps the limits, the file with the best score without training is chosen;
    where only `drop` is limited, the smallest file within it.

    A model without preprocessing inside whose data are pixels in [0, 255] is tried on [0, 255], [0, 1],
    [-1, 1] and ImageNet's mean and deviation; the best scale is told, and becomes part of the model.

    Args:
        model: A built Functional or Sequential model.
        data: Some hundred samples, batched, to choose candidates by: (inputs, labels), or inputs alone.
        budget: The limits.
        judge: Other samples, in the form of `data`, by which the result is judged: of many candidates, the
            one that is best on `data` is better there than elsewhere. None: every third sample of `data`
            judges and does not choose.
        metric: See `sensitivity`.
        on_measured: `on_measured(name, measurement)` is called for each candidate, to show progress.

    Returns:
        A `Plan`: `print` it, then `carry_out` it.

    Raises:
        UnreachableBudgetError: A ValueError: no combination keeps the limits. The nearest that was measured
            is named.

    Example:
        >>> plan = tfopt.compress.plan(model, validation, tfopt.compress.Budget(bytes="250k"))
        >>> result = tfopt.compress.carry_out(plan, train, "small.tflite")

    References:
        Yang et al.: NetAdapt. arXiv:1804.03230
        Everett: Generalized Lagrange multiplier method. Operations Research, 1963.
    """
    return Planner(model, data, judge=judge, metric=metric).plan(budget, on_measured=on_measured)


@final
class Planner:
    """Plans for several budgets of one model: what one of them has measured, the next ones know.

    Args:
        model: As in `plan`.
        data: As in `plan`.
        judge: As in `plan`.
        metric: As in `plan`.
    """

    def __init__(
        self, model: keras.Model, data: Any, *, judge: Any = None, metric: Metric | None = None
    ) -> None:
        check_model(model)
        model = taking_pixels(model, data, metric)
        chooser, self._verdict = judges(model, data, judge, metric)
        if not chooser.labeled:
            _logger.warning("The data has no labels: agreement with the float model stands for accuracy.")
        self._candidates = Candidates(model, chooser)

    def plan(self, budget: Budget, *, on_measured: Callable[[str, Measurement], Any] | None = None) -> Plan:
        """The plan of one budget, as the function `plan` makes it."""
        check_instance("budget", budget, Budget)
        self._candidates.on_measured = on_measured
        search = _Search(self._candidates, budget)
        for precision in PRECISIONS:
            search.try_precision(precision)
        search.shrink()
        return search.best(self._verdict)


class _Search:
    """What one budget makes of the candidates."""

    def __init__(self, candidates: Candidates, budget: Budget) -> None:
        self.candidates, self.budget = candidates, budget
        self.failed: dict[str, str] = {}

    def try_precision(self, precision: str | None) -> None:
        """Measures the whole model, then less of it until the limits hold."""
        try:
            over = self.budget.exceeded(self.candidates.measured(1.0, 0.0, precision))
            if set(over) == {"zipped"} and self._fits(lambda x: (1.0, x, precision), 1e-4, 1e4):
                return
            if over:
                self._fits(
                    lambda share: (float(np.exp(share)), 0.0, precision), 0.0, float(np.log(LEAST_KEEP))
                )
        except (ValueError, RuntimeError) as error:  # a file that cannot be made in this precision
            self.failed[str(precision)] = str(error)
            _logger.info("No file in precision %s: %s", precision, error)

    def shrink(self) -> None:
        """Where only the loss is limited: narrows the smallest file while it stays within, untrained."""
        keys = self._within() if list(self.budget.limits()) == ["drop"] else []
        if not keys:
            return
        _, _, precision = min(keys, key=lambda key: self.candidates.tried[key][1].bytes)
        widest, narrowest = 0.0, float(np.log(LEAST_KEEP))
        share = narrowest
        try:
            while widest - narrowest > -np.log(LEAST_KEEP) / 2**STEPS:
                key = (float(np.exp(share)), 0.0, precision)
                self.candidates.measured(*key)
                if key in self._within():
                    widest = share
                else:
                    narrowest = share
                share = (widest + narrowest) / 2
        except (ValueError, RuntimeError) as error:  # nothing of this model can be narrower
            _logger.info("No narrower file: %s", error)

    def _within(self) -> list[Key]:
        """Candidates that keep the limits and, untrained, the loss as well."""
        tried, whole = self.candidates.tried, self.candidates.judge.float_score
        return [key for key, (_, measured) in tried.items() if not self.budget.missed(measured, whole)]

    def best(self, verdict: Judge) -> Plan:
        """The plan with the best score that keeps the limits, measured again by the data that judges."""
        tried, chooser = self.candidates.tried, self.candidates.judge
        if not tried:
            raise ValueError(f"The model can be exported in no precision: {self.failed}.")
        good = {key: pair for key, pair in tried.items() if not self.budget.exceeded(pair[1])}
        if not good:
            key, (_, near) = min(tried.items(), key=lambda item: self._excess(item[1][1]))
            form = f"{near} with keep={key[0]:.2f}, precision={key[2]!r}"
            raise UnreachableBudgetError(str(self.budget.limits()), form)
        within = self._within()
        if within and list(self.budget.limits()) == ["drop"]:
            key = min(within, key=lambda k: tried[k][1].bytes)
        else:
            key = max(good, key=lambda k: (round(good[k][1].score, 3), -good[k][1].bytes))
        keep, _, precision = key
        sparsities, _ = good[key]
        names = tuple((named(key), measured) for key, (_, measured) in tried.items())
        chosen = self.candidates.made(keep, sparsities)
        expected = verdict.measure(chosen, precision, ranges=chooser.inputs)
        return Plan(
            *(self.candidates.model, self.budget, keep, sparsities, precision, expected),
            *(verdict.float_score, names, chooser, verdict),
        )

    def _fits(self, key: Callable[[float], Key], gentle: float, strong: float) -> bool:
        """Bisects between a gentle and a strong change; whether the strong one keeps the limits."""
        logarithmic = gentle > 0
        if self.budget.exceeded(self.candidates.measured(*key(strong))):
            return False
        for _ in range(STEPS):
            middle = float(np.sqrt(gentle * strong)) if logarithmic else (gentle + strong) / 2
            if self.budget.exceeded(self.candidates.measured(*key(middle))):
                gentle = middle
            else:
                strong = middle
        return True

    def _excess(self, measured: Measurement) -> float:
        over = self.budget.exceeded(measured)
        return max((value / limit for limit, value in over.values()), default=0.0)
