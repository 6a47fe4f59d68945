"""Smaller forms of one model, each measured once on the real file, for as many budgets as there are."""

from collections.abc import Callable
from typing import Any, final

import keras
import numpy as np

from tfopt.compress._kernels import choose
from tfopt.compress.planning.measuring import Judge, Measurement
from tfopt.compress.pruning.masks import magnitude_mask
from tfopt.compress.sensitivity_scan import Sensitivity, sensitivity
from tfopt.compress.slimming import slim

SPARSITIES = (0.5, 0.7, 0.8, 0.9)
Key = tuple[float, float, str | None]  # share of the channels, multiplier of Lagrange, precision


@final
class Candidates:
    """Measures a model at a width, a multiplier and a precision; what was measured is remembered.

    Args:
        model: The float model.
        judge: The data that chooses.

    Attributes:
        tried: The sparsity of each kernel and the measurement, by (share of the channels, multiplier,
            precision).
        on_measured: `on_measured(name, measurement)` is called for each new candidate.
    """

    def __init__(self, model: keras.Model, judge: Judge) -> None:
        self.model, self.judge = model, judge
        self.tried: dict[Key, tuple[dict[str, float], Measurement]] = {}
        self.on_measured: Callable[[str, Measurement], Any] | None = None
        self._narrow: dict[float, keras.Model] = {}
        self._scan: Sensitivity | None = None

    def measured(self, keep: float, multiplier: float, precision: str | None) -> Measurement:
        """What the file of this candidate costs, and its score without training."""
        key = (keep, multiplier, precision)
        if key not in self.tried:
            sparsities = self._sparsities(multiplier) if multiplier else {}
            self.tried[key] = sparsities, self.judge.measure(self.made(keep, sparsities), precision)
            if self.on_measured is not None:
                self.on_measured(named(key), self.tried[key][1])
        return self.tried[key][1]

    def made(self, keep: float, sparsities: dict[str, float]) -> keras.Model:
        """The model with this share of its channels and these shares of zeros."""
        if keep not in self._narrow:
            self._narrow[keep] = narrowed(self.model, keep, self.judge)
        model = self._narrow[keep]
        return pruned_copy(model, sparsities) if sparsities else model

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


def named(key: Key) -> str:
    """A candidate in words."""
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
