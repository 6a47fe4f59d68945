"""What a model costs and loses as a file: everything is measured on the file that `export` writes."""

import logging
import tempfile
import zlib
from dataclasses import dataclass
from typing import Any, final

import keras
import numpy as np

from tfopt import _tflite_internals
from tfopt.compress._data import pairs
from tfopt.compress._input_scale import find_scale, scaled, scales_itself
from tfopt.compress._interpreter import opened
from tfopt.compress._pixel_scales import MEANINGS
from tfopt.compress._score import Metric, score
from tfopt.compress.exporting import export
from tfopt.compress.tflite_model import TFLiteModel

PRECISIONS = (None, "float16", "dynamic", "int8")
LEAST_TO_SPLIT = 60  # samples: a third of fewer says nothing
_logger = logging.getLogger(__name__)
ALIGNMENT = 16  # bytes: TFLite places tensors of the arena at multiples of it


@final
@dataclass(frozen=True)
class Measurement:
    """Costs and score of one file; the names are those of `Budget`."""

    bytes: int
    zipped: int
    latency_ms: float
    arena: int
    score: float

    def __str__(self) -> str:
        """With units."""
        sizes = f"{self.bytes:,} bytes, {self.zipped:,} zipped, arena {self.arena:,}"
        return f"{sizes}, {self.latency_ms:.3g} ms, score {self.score:.4g}"


@final
class Judge:
    """Measures models as files on the same data.

    Args:
        model: The float model. Without labels in the data, agreement with it is the score: its classes, or
            its values by R^2.
        data: Batched, with or without labels; also the representative data of int8 files.
        metric: See `sensitivity`.
    """

    def __init__(self, model: keras.Model, data: Any, metric: Metric | None) -> None:
        self.inputs, labels = _whole(data)
        self.metric, self.labeled = metric, labels is not None
        outputs = [np.asarray(y) for y in keras.tree.flatten(model.predict(self.inputs, verbose=0))]
        self.labels = labels if self.labeled else [_answers(y) for y in outputs]
        self.float_score = score(self.labels, outputs, metric)

    @property
    def data(self) -> tuple[Any, Any]:
        """Inputs and labels, as `sensitivity` takes them."""
        return self.inputs, self.labels

    def measure(
        self, model: keras.Model, precision: str | None, path: Any = None, ranges: Any = None
    ) -> Measurement:
        """Exports a model and measures the file.

        Args:
            model: The model, from `quantize_aware` or not.
            precision: As `export(quantization=)`.
            path: Where the file is kept, or None.
            ranges: Inputs for the ranges of an integer file; None: those that judge.
        """
        with tempfile.TemporaryDirectory() as folder:
            target = f"{folder}/model.tflite" if path is None else path
            sample = self.inputs if ranges is None else ranges
            file = export(model, target, precision, sample if precision in ("int8", "int16x8") else None)
            return self.measure_file(file)

    def measure_file(self, file: TFLiteModel) -> Measurement:
        """Costs and score of a file."""
        first = keras.tree.map_structure(lambda x: x[:1], self.inputs)
        outputs = [np.asarray(y) for y in keras.tree.flatten(file.predict(self.inputs))]
        latency, content = file.benchmark(first, seconds=0.3).median_ms, file.content
        value = score(self.labels, outputs, self.metric)
        return Measurement(len(content), len(zlib.compress(content, 6)), latency, arena(file), value)


def judges(model: keras.Model, data: Any, other: Any, metric: Metric | None) -> tuple[Judge, Judge]:
    """The data that chooses and the data that judges: every third sample of the former if none are given."""
    if other is not None:
        return Judge(model, data, metric), Judge(model, other, metric)
    inputs, labels = _whole(data)
    count = len(keras.tree.flatten(inputs)[0])
    if count < LEAST_TO_SPLIT:
        _logger.warning("`data` has %d samples, too few to set some aside: they choose and judge.", count)
        both = Judge(model, (inputs, labels), metric)
        return both, both
    third = np.arange(count) % 3 == 2
    choosing, judging = (Judge(model, _rows(inputs, labels, rows), metric) for rows in (~third, third))
    return choosing, judging


def taking_pixels(model: keras.Model, data: Any, metric: Metric | None) -> keras.Model:
    """The model itself, or with the scale in front with which it scores best on pixels in [0, 255]."""
    shape = getattr(model, "input_shape", None)
    is_for_images = isinstance(shape, tuple) and len(shape) == 4 and shape[-1] == 3
    if not is_for_images or scales_itself(model):
        return model
    inputs, labels = _whole(data)
    images = np.asarray(keras.tree.flatten(inputs)[0])
    whole = images.dtype.kind in "ui" or bool((images == np.rint(images)).all())
    if labels is None or not whole or images.min() < 0 or not 1 < images.max() <= 255:
        return model

    def scored(candidate: keras.Model) -> float:
        outputs = keras.tree.flatten(candidate.predict(images, verbose=0))
        found = score(labels, [np.asarray(y) for y in outputs], metric)
        return found if np.isfinite(found) else -np.inf

    scale, scores = find_scale(model, scored)
    tried = ", ".join(f"{MEANINGS[name]} {value:.3f}" for name, value in scores.items())
    if scale != "pixels":
        text = "The model has no preprocessing inside; pixels are scaled to %s in front of it (score: %s)."
        _logger.warning(text, MEANINGS[scale], tried)
    return scaled(model, scale)


def arena(file: TFLiteModel) -> int:
    """Bytes of all activations that live at once, at their peak: from the making to the last reading."""
    interpreter = opened(file.path, built_in=True)
    operations = _tflite_internals.operations(interpreter)
    sizes = {t["index"]: _padded(t) for t in interpreter.get_tensor_details()}
    start = {int(t["index"]): -1 for t in interpreter.get_input_details()}
    end = {int(t["index"]): len(operations) for t in interpreter.get_output_details()}
    for place, operation in enumerate(operations):
        for index in map(int, operation["outputs"]):
            start.setdefault(index, place)
            end.setdefault(index, place)
        for index in map(int, operation["inputs"]):
            if index in start:
                end[index] = max(end.get(index, place), place)
    live = [
        sum(sizes.get(i, 0) for i in start if start[i] <= place <= end.get(i, -1))
        for place in range(len(operations))
    ]
    return max(live, default=0)


def _padded(tensor: dict[str, Any]) -> int:
    size = int(np.prod(tensor["shape"])) * np.dtype(tensor["dtype"]).itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT


def _whole(data: Any) -> tuple[Any, Any]:
    """All inputs and all labels, or None for labels."""
    elements = list(pairs(data))
    if not elements:
        raise ValueError("`data` must have at least one batch. Received an empty dataset.")
    labels = None if elements[0][1] is None else _joined([y for _, y in elements])
    return _joined([inputs for inputs, _ in elements]), labels


def _rows(inputs: Any, labels: Any, rows: np.ndarray) -> Any:
    """Some samples, in the form that `pairs` takes."""
    parts = [
        keras.tree.map_structure(lambda x: x[rows], each) for each in (inputs, labels) if each is not None
    ]
    return tuple(parts) if len(parts) == 2 else (parts[0], None)


def _joined(parts: list[Any]) -> Any:
    return keras.tree.map_structure(lambda *leaves: np.concatenate(leaves), *parts)


def _answers(outputs: np.ndarray) -> np.ndarray:
    """The class of each row where the outputs are scores of classes (rows that sum to 1), else the
    outputs."""
    scores = outputs.shape[-1] > 1 and np.allclose(outputs.sum(-1), 1.0, atol=1e-3)
    return outputs.argmax(-1) if scores else outputs
