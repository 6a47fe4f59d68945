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

from tfopt._checks import check_instance, check_number, message
from tfopt._optional import require
from tfopt._table import Printable
from tfopt.compress._data import batches, classes
from tfopt.compress._kernels import choose
from tfopt.compress._switched import Switched
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
        drop: Accuracy lost, or None for data without labels.
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
            pathlib.Path(path).write_text(text)
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
) -> Sensitivity:
    """Disturbs one layer at a time, without training, and measures what that does to the outputs.

    Use it before `Pruning` and `quantize_aware` to find the few layers that are better left alone. Training
    mends much of what is measured here: read it as an order, not as a forecast. The model is not changed.

    Cost: a pass over the data for each layer and disturbance; some hundred samples are enough.

    Args:
        model: A Functional or built Sequential model with one output.
        data: A batched dataset or array of inputs, or with labels: (inputs, labels).
        sparsities: Shares of each prunable kernel that are set to zero, each in (0, 1).
        quantization: Whether to measure int8 too, kernel and outputs of a layer.
        skip: Layers that stay in float, for which there is no int8 rule.

    Returns:
        A `Sensitivity`: `print` it, `.plot(path)` it, or take `.exclude(0.8)` and `.skip()` from it.

    Raises:
        ValueError: no data, a sparsity out of its bounds, several outputs, labels for a model without one
            output per class, or a model that `quantize_aware` refuses.

    Example:
        >>> scan = tfopt.compress.sensitivity(model, validation.take(10))
        >>> pruning = tfopt.compress.Pruning(0.8, exclude=scan.exclude(0.8))
        >>> quantized = tfopt.compress.quantize_aware(model, skip=scan.skip())
    """
    check_instance("model", model, keras.Model)
    for value in sparsities:
        check_number("sparsities", check_sparsity("sparsities", value), minimum=0.0, open_minimum=True)
    if len(model.outputs or ()) > 1:
        raise ValueError(message("model", "a model with one output", [x.name for x in model.outputs]))
    pairs = list(batches(data))
    if not pairs:
        raise ValueError("`data` must have at least one batch. Received an empty dataset.")
    inputs = [np.asarray(batch, "float32") for batch, _ in pairs]
    labels = None if pairs[0][1] is None else np.concatenate([truth for _, truth in pairs])
    subject = Switched(model, skip, inputs)
    before = subject.predict(inputs)
    rows = []
    prunable = [name for name in choose(subject.model).chosen if name in subject.kernels]
    for name in dict.fromkeys([*subject.kernels, *filter(None, subject.switches)]):
        for sparsity in sparsities if name in prunable else ():
            rows.append(_row(subject, inputs, before, labels, name, sparsity))
        if quantization:
            rows.append(_row(subject, inputs, before, labels, name, None))
    order = {call: place for place, call in enumerate(layer.name for layer in subject.model.layers)}
    rows.sort(key=lambda row: order.get(row.layer, order.get(f"{row.layer}_range", 0)))
    accuracy = None if labels is None else _accuracy(before, labels)
    return Sensitivity(tuple(rows), accuracy, len(before))


def _row(
    subject: Switched,
    inputs: list[np.ndarray],
    before: np.ndarray,
    labels: np.ndarray | None,
    name: str,
    sparsity: float | None,
) -> SensitivityRow:
    kernel: Any = subject.kernels.get(name)
    value: Any = None if kernel is None else kernel.numpy()
    if kernel is not None:
        layer = subject.layers[name]
        kernel.assign(_rounded(layer, value) if sparsity is None else _pruned(value, sparsity))
    subject.switch(name, sparsity is None)
    after = subject.predict(inputs)
    subject.switch(name, False)
    if kernel is not None:
        kernel.assign(value)
    change = float(np.mean(np.max(np.abs(after - before).reshape(len(before), -1), axis=1)))
    drop = None if labels is None else _accuracy(before, labels) - _accuracy(after, labels)
    return SensitivityRow(name, sparsity, change, drop)


def _accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(classes(outputs) == labels))


def _pruned(kernel: np.ndarray, sparsity: float) -> np.ndarray:
    value = tf.constant(kernel)
    return (value * magnitude_mask(value, sparsity)).numpy()


def _rounded(layer: keras.layers.Layer, kernel: np.ndarray) -> np.ndarray:
    """On the grid -127..127: of each channel for convolutions, of the whole for dense layers."""
    axes = {keras.layers.Conv2D: (0, 1, 2), keras.layers.DepthwiseConv2D: (0, 1)}.get(type(layer))
    scale = np.maximum(np.abs(kernel).max(axis=axes, keepdims=True), 1e-8) / 127
    return np.round(kernel / scale) * scale
