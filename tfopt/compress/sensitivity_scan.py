"""sensitivity: which layers suffer from pruning and from 8 bits, measured one layer at a time."""

import json
import pathlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf
from rich.table import Table

from tfopt._checks import check_number
from tfopt._optional import require
from tfopt._table import Printable
from tfopt.compress._called import Called, rounded
from tfopt.compress._data import pairs
from tfopt.compress._kernels import Kernel, choose
from tfopt.compress._ports import check_model
from tfopt.compress._score import Metric, score
from tfopt.compress.pruning.masks import magnitude_mask
from tfopt.compress.pruning.schedules import check_sparsity

INT8 = "int8"


@final
@dataclass(frozen=True)
class SensitivityRow:
    """What one disturbance of one layer does.

    Attributes:
        layer: The name, as `exclude=` and `skip=` take it.
        sparsity: Share of zeros in its kernel, or None: its kernel and outputs have 8 bits.
        change: Largest change of an output, mean over the samples.
        drop: Accuracy (or what `metric` gives) lost, or None for data without labels.
    """

    layer: str
    sparsity: float | None
    change: float
    drop: float | None

    @property
    def harm(self) -> float:
        """`drop`, or `change` without labels."""
        return self.change if self.drop is None else self.drop


@final
@dataclass(frozen=True)
class Sensitivity(Printable):
    """The rows of `sensitivity`; prints as a table.

    Attributes:
        rows: In the order of the layers.
        accuracy: Of the model as it is, or None.
        samples: How many samples were used.
    """

    rows: tuple[SensitivityRow, ...]
    accuracy: float | None
    samples: int

    def exclude(self, sparsity: float, most: float = 0.01) -> list[str]:
        """Layers for `Pruning(exclude=...)`: alone at this sparsity they do more harm than `most`."""
        known = sorted({row.sparsity for row in self.rows if row.sparsity is not None})
        if sparsity not in known:
            raise ValueError(f"`sparsity` must be one that was measured: {known}. Received: {sparsity!r}.")
        return [row.layer for row in self.rows if row.sparsity == sparsity and row.harm > most]

    def skip(self, most: float = 0.01) -> list[str]:
        """Layers for `quantize_aware(skip=...)`: alone in 8 bits they do more harm than `most`."""
        return [row.layer for row in self.rows if row.sparsity is None and row.harm > most]

    def __rich__(self) -> Table:
        """A line per layer, a column per disturbance."""
        what = "accuracy lost" if self.accuracy is not None else "largest change of an output"
        table = Table(caption=f"{what}, one layer disturbed at a time; {self.samples} samples")
        table.add_column("layer")
        names, columns, values = self._matrix()
        for column in columns:
            table.add_column(column, justify="right")
        form = "{:.1%}" if self.accuracy is not None else "{:.2g}"
        for name, line in zip(names, values):
            table.add_row(name, *("" if np.isnan(value) else form.format(value) for value in line))
        return table

    def to_json(self, path: str | pathlib.Path | None = None) -> str:
        """Everything as JSON text, written to a file too if a path is given."""
        text = json.dumps(asdict(self), indent=2)
        if path is not None:
            pathlib.Path(path).write_text(text, encoding="utf-8")
        return text

    def plot(self, path: str | pathlib.Path) -> pathlib.Path:
        """Draws layers against disturbances as a map of harm; the format follows the file's suffix."""
        names, columns, values = self._matrix()
        module: Any = require("matplotlib.figure", "`Sensitivity.plot`")
        figure = module.Figure(figsize=(2.5 + 0.7 * len(columns), 1 + 0.2 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        picture = axes.imshow(np.maximum(values, 0), aspect="auto", cmap="magma_r")
        axes.set_xticks(range(len(columns)), columns, rotation=45)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        label = "accuracy lost" if self.accuracy is not None else "largest change of an output"
        figure.colorbar(picture, label=label)
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        return path

    def _matrix(self) -> tuple[list[str], list[str], np.ndarray]:
        kinds = sorted({row.sparsity for row in self.rows}, key=lambda s: 2.0 if s is None else s)
        names = list(dict.fromkeys(row.layer for row in self.rows))
        values: np.ndarray = np.full((len(names), len(kinds)), np.nan)
        for row in self.rows:
            values[names.index(row.layer), kinds.index(row.sparsity)] = row.harm
        return names, [INT8 if kind is None else f"{kind:g} zeros" for kind in kinds], values


def sensitivity(
    model: keras.Model,
    data: Any,
    *,
    sparsities: Sequence[float] = (0.5, 0.8, 0.9),
    quantization: bool = True,
    skip: Sequence[str] = (),
    metric: Metric | None = None,
) -> Sensitivity:
    """Disturbs one layer at a time, without training, and measures what that does to the outputs.

    Use it before `Pruning` and `quantize_aware` to find the few layers that are better left alone. Training
    mends much of what is measured here: read it as an order, not as a forecast. Weights are changed while it
    runs and are then as before.

    Cost: a pass over the data for each layer and disturbance; some hundred samples are enough.

    Args:
        model: Any built model: subclassed, with several inputs and outputs, with layers of your own.
        data: A batched dataset or arrays of inputs, or with labels: (inputs, labels).
        sparsities: Shares of each kernel that `Pruning` reaches that are set to zero, each in (0, 1).
        quantization: Whether to measure int8 too: kernels of a layer and what it returns on 256 levels.
        skip: Layers that stay in float.
        metric: What labels are compared by: a function of (labels, outputs) of one output, larger is better,
            averaged over several outputs. By default accuracy for classes and several labels, else R^2.

    Returns:
        A `Sensitivity`: `print` it, `.plot(path)` it, or take `.exclude(0.8)` and `.skip()` from it.

    Raises:
        ValueError: If there is no data, a sparsity is out of its bounds, labels do not fit the outputs, or
            the model was quantized by Keras.

    Example:
        >>> scan = tfopt.compress.sensitivity(model, validation.take(10))
        >>> pruning = tfopt.compress.Pruning(0.8, exclude=scan.exclude(0.8))
        >>> quantized = tfopt.compress.quantize_aware(model, skip=scan.skip())
    """
    check_model(model)
    for value in sparsities:
        check_number("sparsities", check_sparsity("sparsities", value), minimum=0.0, open_minimum=True)
    elements = list(pairs(data))
    if not elements:
        raise ValueError("`data` must have at least one batch. Received an empty dataset.")
    inputs = [batch for batch, _ in elements]
    prunable = choose(model, what="measured").chosen
    subject = Called(model, inputs, skip)
    try:
        trial = _Trial(subject, inputs, _together([truth for _, truth in elements]), metric)
        rows = []
        for name in dict.fromkeys([*subject.names, *subject.kernels]):
            for kernel in subject.kernels.get(name, ()):
                if kernel.name in prunable:
                    rows += [trial.pruned(kernel, sparsity) for sparsity in sparsities]
            if quantization and name in subject.names:
                rows.append(trial.quantized(name))
    finally:
        subject.close()
    return Sensitivity(tuple(rows), trial.score, len(trial.before[0]))


def _together(labels: list[Any]) -> Any:
    """The labels of all batches in one structure, or None."""
    if labels[0] is None:
        return None
    return keras.tree.map_structure(lambda *parts: np.concatenate([np.asarray(x) for x in parts]), *labels)


class _Trial:
    """Measures one disturbance at a time."""

    def __init__(self, subject: Called, inputs: list[Any], labels: Any, metric: Metric | None) -> None:
        self.subject, self.inputs, self.labels, self.metric = subject, inputs, labels, metric
        self.before = subject.predict(inputs)
        self.score = None if labels is None else score(labels, self.before, metric)

    def pruned(self, kernel: Kernel, sparsity: float) -> SensitivityRow:
        """With the smallest weights of one kernel at zero."""
        value = tf.convert_to_tensor(kernel.variable)
        changes = {kernel: (value * magnitude_mask(value, sparsity)).numpy()}
        return self._row(kernel.name, sparsity, changes)

    def quantized(self, name: str) -> SensitivityRow:
        """With the kernels and the outputs of one layer on 256 levels."""
        self.subject.round_outputs(name, True)
        try:
            changes = {kernel: rounded(kernel) for kernel in self.subject.kernels.get(name, ())}
            return self._row(name, None, changes)
        finally:
            self.subject.round_outputs(name, False)

    def _row(self, name: str, sparsity: float | None, changes: dict[Kernel, np.ndarray]) -> SensitivityRow:
        values = {kernel: kernel.variable.numpy() for kernel in changes}
        try:
            for kernel, value in changes.items():
                kernel.variable.assign(value)
            after = self.subject.predict(self.inputs)
        finally:
            for kernel, value in values.items():
                kernel.variable.assign(value)
        differences = [np.abs(a - b).reshape(len(b), -1) for a, b in zip(after, self.before)]
        change = float(np.mean(np.max(np.concatenate(differences, axis=1), axis=1)))
        drop = None if self.score is None else self.score - score(self.labels, after, self.metric)
        return SensitivityRow(name, sparsity, change, drop)
