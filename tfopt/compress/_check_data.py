"""Inputs to run a model and its file on: given by the user, or drawn from the ranges that the model shows."""

import logging
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfopt import _keras_internals
from tfopt.compress._graph import Graph
from tfopt.compress._matching import Port
from tfopt.compress._ports import Portable
from tfopt.compress.quantization.layers import FakeQuantize

L = keras.layers
LEAST_WIDTH = 0.02  # what the first layer makes of pixels on the wrong scale is 1/255 wide
_logger = logging.getLogger(__name__)


def first_layers(model: keras.Model) -> list[list[keras.Layer]]:
    """For each input the layers that take it; empty where the model cannot be looked into."""
    try:
        graph = Graph(model)
    except ValueError:
        return [[] for _ in model.inputs]
    return [[call.operation for call in graph.consumers[index]] for index in graph.inputs]


def drawn(model: Portable, shapes: Sequence[tuple], count: int) -> list[np.ndarray]:
    """Inputs that exercise the model: coarse patterns whose level and contrast vary from sample to sample.

    The range of an input is the one that `quantize_aware` learned, the one its first layer scales to [-1, 1]
    or normalizes, else that of standardized numbers. Integers are indices that the model's embeddings have.
    """
    random = np.random.default_rng(0)
    found = []
    for port, shape, layers in zip(model.inputs, shapes, first_layers(model.model)):
        if "int" in port.dtype or port.dtype == "bool":
            top = _indices(model.model, port)
            found.append(random.integers(0, top, (count, *shape)).astype(port.dtype))
            continue
        low, high = _range(layers)
        found.append((low + (high - low) * _patterns(random, count, shape)).astype(port.dtype))
    return found


def warn_of_scale(model: Portable, arrays: Sequence[np.ndarray]) -> None:
    """Warns if the data is on another scale than the model's first layers or learned ranges expect."""
    for port, array, layers in zip(model.inputs, arrays, first_layers(model.model)):
        if "float" not in port.dtype or not array.size:
            continue
        low, high = float(array.min()), float(array.max())
        for layer in layers:
            text = _mismatch(layer, low, high, array)
            if text:
                _logger.warning(
                    "`representative_data` may be on another scale than the model's input %r: it lies in "
                    "[%.4g, %.4g], %s. The int8 ranges would be wrong for real inputs.",
                    port.name,
                    low,
                    high,
                    text,
                )
                break


def _mismatch(layer: Any, low: float, high: float, array: np.ndarray) -> str:
    if isinstance(layer, FakeQuantize) and layer.calibrated:
        start, end = float(layer.low.numpy()), float(layer.high.numpy())
        wide, width = max(abs(low), abs(high)), max(abs(start), abs(end))
        if wide > 2.0 * width or wide < 0.05 * width:
            return f"the range that `quantize_aware` learned is [{start:.4g}, {end:.4g}]"
    if isinstance(layer, L.Rescaling) and isinstance(layer.scale, int | float):
        width = (high - low) * abs(layer.scale)
        if width < LEAST_WIDTH:
            return (
                f"of which layer {layer.name!r} (scale {layer.scale:.4g}) leaves a width of {width:.2g}; "
                f"it was made for inputs around {1 / layer.scale:.4g}"
            )
    if isinstance(layer, L.Normalization) and layer.built:
        values = np.asarray(layer(array))
        if np.abs(values.mean()) > 5.0 or values.std() < 0.05:
            found = f"mean {values.mean():.2g}, deviation {values.std():.2g}"
            return f"which layer {layer.name!r} makes into {found}"
    return ""


def _range(layers: Sequence[Any]) -> tuple[float, float] | tuple[np.ndarray, np.ndarray]:
    for layer in layers:
        if isinstance(layer, FakeQuantize) and layer.calibrated:
            return float(layer.low.numpy()), float(layer.high.numpy())
        if isinstance(layer, L.Rescaling) and isinstance(layer.scale, int | float) and layer.scale > 0:
            offset = layer.offset if isinstance(layer.offset, int | float) else 0.0
            return (min(0.0, offset) - offset) / layer.scale, (1.0 - offset) / layer.scale + min(0.0, offset)
        if isinstance(layer, L.Normalization) and getattr(layer, "mean", None) is not None:
            mean, deviation = np.asarray(layer.mean), np.sqrt(np.asarray(layer.variance))
            return np.squeeze(mean - 2 * deviation), np.squeeze(mean + 2 * deviation)
    return -2.0, 2.0


def _indices(model: keras.Model, port: Port) -> int:
    sizes = [
        layer.input_dim for layer in _keras_internals.leaf_layers(model) if isinstance(layer, L.Embedding)
    ]
    if sizes:
        return max(1, min(sizes))
    return 256 if port.dtype == "uint8" else 2


def _patterns(random: np.random.Generator, count: int, shape: tuple) -> np.ndarray:
    """Numbers in [0, 1]: blocks and noise, each sample and channel with its own mean."""
    if len(shape) < 2:
        return random.uniform(size=(count, *shape))
    value = random.normal(size=(count, *[max(2, size // 8) for size in shape[:-1]], shape[-1]))
    for axis, size in enumerate(shape[:-1], start=1):
        value = np.take(value, np.arange(size) * value.shape[axis] // size, axis=axis)
    level = random.normal(size=(count, *[1] * (len(shape) - 1), shape[-1]))
    contrast = random.uniform(0.3, 1.0, size=(count, *[1] * len(shape)))
    noise = 0.3 * random.normal(size=value.shape)
    return np.clip(0.5 + 0.2 * (contrast * (value + noise) + level), 0.0, 1.0)
