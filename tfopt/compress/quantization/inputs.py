"""Ranges of a model's inputs: given, learned, and whether data fit them."""

import logging
from collections.abc import Mapping
from itertools import islice
from typing import Any

import keras
import numpy as np

from tfopt._checks import message
from tfopt.compress._data import pairs
from tfopt.compress.quantization.layers import FakeQuantize, calibrating

InputRange = tuple[float, float] | Mapping[str, tuple[float, float]] | None
CALIBRATION_BATCHES = 32
_LEVELS = 8  # columns with fewer of the 256 levels are told
_logger = logging.getLogger(__name__)


def named_ranges(model: keras.Model, given: InputRange) -> dict[str, tuple[float, float]]:
    """The fixed ranges by name of the input.

    Raises:
        ValueError: If a range is not (low, high) with low < high, or a name is not that of an input.
    """
    if given is None:
        return {}
    names = [tensor.name for tensor in model.inputs]
    ranges = dict(given) if isinstance(given, Mapping) else dict.fromkeys(names, given)
    for name, ends in ranges.items():
        numbers = isinstance(ends, tuple | list) and len(ends) == 2 and np.isfinite(ends).all()
        if name not in names or not numbers or ends[0] >= ends[1]:
            expected = f"(low, high) with low < high, or a dictionary of such for inputs of {names}"
            raise ValueError(message("input_range", expected, given))
    return {name: (float(low), float(high)) for name, (low, high) in ranges.items()}


def calibrate(model: keras.Model, data: Any) -> None:
    """Starts the ranges of a `quantize_aware` model from data, without any training.

    Args:
        model: The model.
        data: A batched dataset or arrays, with labels or without.
    """
    with calibrating():
        for inputs, _ in islice(pairs(data), CALIBRATION_BATCHES):
            model(inputs, training=False)
    warn_about_inputs(model)


def warn_about_inputs(model: keras.Model) -> None:
    """Logs a warning for inputs outside of their fixed range, and for columns that one scale cannot hold."""
    for layer in model.layers:
        if not isinstance(layer, FakeQuantize) or not layer.watch:
            continue
        (low, high), name = layer.seen.numpy(), layer.name.removesuffix("_range")
        ends = float(layer.low.numpy()), float(layer.high.numpy())
        margin = 0.01 * (ends[1] - ends[0])
        if layer.minimum is not None and (low.min() < ends[0] - margin or high.max() > ends[1] + margin):
            _logger.warning(
                "Input %r has values from %g to %g, outside of its range from %g to %g: they are cut. Give "
                "`input_range=(%g, %g)`, or bring the data to the range.",
                *(name, low.min(), high.max(), *ends, low.min(), high.max()),
            )
        sizes = np.maximum(np.abs(low), np.abs(high))
        few = np.flatnonzero((sizes > 0) & (high - low < _LEVELS * (ends[1] - ends[0]) / 255.0))
        if 0 < len(few) < len(sizes):
            _logger.warning(
                "Input %r has one scale for all its columns, of %g to a level: columns %s (from %g to %g) "
                "have "
                "fewer than %d of the 256 levels. Give the model inputs of equal size (normalize before "
                "it), or "
                "leave the input and its normalization in float: `skip=[%r, ...]`.",
                *(name, (ends[1] - ends[0]) / 255.0, few[:8].tolist(), low[few].min(), high[few].max()),
                *(_LEVELS, name),
            )
