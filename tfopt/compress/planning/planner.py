"""Chooses width, sparsity of each layer and precision under a budget, each step measured on the real file."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import keras
import numpy as np

from tfopt._checks import check_instance
from tfopt.compress._kernels import choose
from tfopt.compress._ports import check_model
from tfopt.compress._score import Metric
from tfopt.compress.planning.budget import Budget
from tfopt.compress.planning.measuring import PRECISIONS, Judge, Measurement, judges, taking_pixels
from tfopt.compress.pruning.masks import magnitude_mask
from tfopt.compress.sensitivity_scan import Sensitivity, sensitivity
from tfopt.compress.slimming import slim

_logger = logging.getLogger(__name__)
SPARSITIES = (0.5, 0.7, 0.8, 0.9)
LEAST_KEEP = 0.1
STEPS = 4  # of a bisection: widths and multipliers are known to a sixteenth of their interval
MOST_CANDIDATES = len(PRECISIONS) * 2 * (STEPS + 1)  # whole, then less of it, until the limits hold


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
        ValueError: If no combination keeps the limits: the nearest that was measured is named.

    Example:
        >>> plan = tfopt.compress.plan(model, validation, tfopt.compress.Budget(bytes="250k"))
        >>> result = tfopt.compress.carry_out(plan, train, "small.tflite")

    References:
        Yang et al.: NetAdapt. arXiv:1804.03230
        Everett: Generalized Lagrange multiplier method. Operations Research, 1963.
    """
    check_model(model)
    check_instance("budget", budget, Budget)
    model = taking_pixels(model, data, metric)
    chooser, verdict = judges(model, data, judge, metric)
    if not chooser.labeled:
        _logger.warning("The data has no labels: agreement with the float model stands for accuracy.")
    search = _Search(model, chooser, budget, on_measured)
    for precision in PRECISIONS:
        search.try_precision(precision)
    return search.best(verdict)


class _Search:
    """Candidates of one model: measured once, remembered."""

    def __init__(
        self, model: keras.Model, judge: Judge, budget: Budget, on_measured: Callable | None = None
    ) -> None:
        self.model, self.judge, self.budget, self.on_measured = model, judge, budget, on_measured
        self.tried: dict[tuple, tuple[dict[str, float], Measurement]] = {}
        self.failed: dict[str, str] = {}
        self._scan: Sensitivity | None = None

    def try_precision(self, precision: str | None) -> None:
        """Measures the whole model, then less of it until the limits hold."""
        try:
            over = self.budget.exceeded(self._measured(1.0, 0.0, precision))
            if set(over) == {"zipped"} and self._fits(lambda x: (1.0, x, precision), 1e-4, 1e4):
                return
            if over:
                self._fits(
                    lambda share: (float(np.exp(share)), 0.0, precision), 0.0, float(np.log(LEAST_KEEP))
                )
        except (ValueError, RuntimeError) as error:  # a file that cannot be made in this precision
            self.failed[str(precision)] = str(error)
            _logger.info("No file in precision %s: %s", precision, error)

    def best(self, verdict: Judge) -> Plan:
        """The plan with the best score that keeps the limits, measured again by the data that judges."""
        if not self.tried:
            raise ValueError(f"The model can be exported in no precision: {self.failed}.")
        good = {key: pair for key, pair in self.tried.items() if not self.budget.exceeded(pair[1])}
        if not good:
            key, (_, near) = min(self.tried.items(), key=lambda item: self._excess(item[1][1]))
            raise ValueError(
                f"`budget` must be reachable. Received: {self.budget.limits()}. The nearest that was "
                f"measured is {near} with keep={key[0]:.2f}, precision={key[2]!r}. Raise the limits to that, "
                "or start from a smaller model or image size."
            )
        drop = self.budget.drop
        within = {
            k: p for k, p in good.items() if drop is None or self.judge.float_score - p[1].score <= drop
        }
        if within and drop is not None and len(self.budget.limits()) == 1:
            key = min(within, key=lambda k: within[k][1].bytes)
        else:
            key = max(good, key=lambda k: (round(good[k][1].score, 3), -good[k][1].bytes))
        keep, _, precision = key
        sparsities, _ = good[key]
        names = tuple((_named(tried), pair[1]) for tried, pair in self.tried.items())
        chosen = narrowed(self.model, keep, self.judge)
        chosen = pruned_copy(chosen, sparsities) if sparsities else chosen
        expected = verdict.measure(chosen, precision, ranges=self.judge.inputs)
        return Plan(
            *(self.model, self.budget, keep, sparsities, precision, expected),
            *(verdict.float_score, names, self.judge, verdict),
        )

    def _fits(self, key: Callable[[float], tuple], gentle: float, strong: float) -> bool:
        """Bisects between a gentle and a strong change; whether the strong one keeps the limits."""
        logarithmic = gentle > 0
        if self.budget.exceeded(self._measured(*key(strong))):
            return False
        for _ in range(STEPS):
            middle = float(np.sqrt(gentle * strong)) if logarithmic else (gentle + strong) / 2
            if self.budget.exceeded(self._measured(*key(middle))):
                gentle = middle
            else:
                strong = middle
        return True

    def _measured(self, keep: float, multiplier: float, precision: str | None) -> Measurement:
        key = (keep, multiplier, precision)
        if key not in self.tried:
            model = narrowed(self.model, keep, self.judge)
            sparsities = self._sparsities(multiplier) if multiplier else {}
            with_zeros = pruned_copy(model, sparsities) if sparsities else model
            self.tried[key] = sparsities, self.judge.measure(with_zeros, precision)
            if self.on_measured is not None:
                self.on_measured(_named(key), self.tried[key][1])
        return self.tried[key][1]

    def _sparsities(self, multiplier: float) -> dict[str, float]:
        """Per kernel the sparsity with the least harm - multiplier * (its zeros / all weights)."""
        if self._scan is None:
            self._scan = sensitivity(
                self.model,
                self.judge.data,
                sparsities=SPARSITIES,
                quantization=False,
                metric=self.judge.metric,
            )
        kernels = choose(self.model).chosen
        sizes = {name: int(np.prod(kernel.variable.shape)) for name, kernel in kernels.items()}
        total = sum(sizes.values())
        gains = {name: {0.0: 0.0} for name in kernels}
        for row in self._scan.rows:
            if row.sparsity is not None and row.layer in gains:
                zeros = row.sparsity * sizes[row.layer] / total
                gains[row.layer][row.sparsity] = max(row.harm, 0.0) - multiplier * zeros
        best = {name: min(values, key=values.__getitem__) for name, values in gains.items()}
        return {name: value for name, value in best.items() if value}

    def _excess(self, measured: Measurement) -> float:
        over = self.budget.exceeded(measured)
        return max((value / limit for limit, value in over.values()), default=0.0)


def _named(key: tuple) -> str:
    keep, multiplier, precision = key
    return f"keep={keep:.2f}, multiplier={multiplier:g}, {precision or 'float32'}"


def narrowed(model: keras.Model, keep: float, judge: Judge) -> keras.Model:
    """The model with this share of its channels, fitted to what it made before."""
    return model if keep >= 1.0 else slim(model, keep=keep, criterion="l2", data=judge.inputs)


def pruned_copy(model: keras.Model, sparsities: dict[str, float]) -> keras.Model:
    """A copy with the smallest weights of each kernel at zero."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for name, kernel in choose(copy).chosen.items():
        if name in sparsities:
            value = keras.ops.convert_to_tensor(kernel.variable)
            kernel.variable.assign(value * magnitude_mask(value, sparsities[name]))
    return copy
