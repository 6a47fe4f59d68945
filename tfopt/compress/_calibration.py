"""What activations are in the representative data, and the ranges that follow from it.

The converter measures extremes only. So the float file that it makes on the way is run here once more, with
all its tensors kept.
"""

import pathlib
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from tfopt import _tflite_internals
from tfopt.compress._interpreter import opened

CALIBRATIONS = ("minmax", "mse")
DRAWN = 4096  # values of an activation in one run, beside its extremes
JUDGED = 65536  # values by which a range is chosen
SHARES = np.linspace(1.0, 0.3, 36)[1:]  # of an end of the range of extremes
schema = _tflite_internals.schema()


@final
@dataclass(frozen=True)
class Observed:
    """Some values of an activation, and the mean of each of its channels."""

    values: np.ndarray
    means: np.ndarray


def observed(
    content: bytes, data: list[np.ndarray], tensors: Iterable[int], runs: int
) -> dict[int, Observed]:
    """Runs a float file, and returns what some of its tensors are, by number.

    Args:
        content: The file.
        data: Inputs, one array for each of the model.
        tensors: Numbers of the file's inputs, and of what its operations compute.
        runs: How often to run the file at most, on inputs from all over the data.
    """
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "float.tflite"
        path.write_bytes(content)
        interpreter = opened(path, built_in=True, keep_tensors=True)
        inputs = interpreter.get_input_details()
        size = int(inputs[0]["shape"][0])
        floats = {t["index"] for t in interpreter.get_tensor_details() if t["dtype"] == np.float32}
        values: dict[int, list[np.ndarray]] = {index: [] for index in sorted(floats.intersection(tensors))}
        means: dict[int, list[np.ndarray]] = {index: [] for index in values}
        for start in np.unique(np.linspace(0, max(len(data[0]) - size, 0), runs).astype(int)):
            rows: np.ndarray = np.arange(start, start + size) % len(data[0])
            interpreter.reset_all_variables()
            for entry in inputs:
                place = int(re.findall(r"input_(\d+)", entry["name"])[-1])
                interpreter.set_tensor(entry["index"], data[place][rows].astype(entry["dtype"]))
            interpreter.invoke()
            for index in values:
                found = interpreter.get_tensor(index)
                values[index].append(_drawn(found.ravel(), random))
                means[index].append(found.reshape(-1, found.shape[-1] if found.ndim else 1).mean(0))
        del interpreter  # which keeps the file open
    return {index: Observed(np.concatenate(values[index]), np.mean(means[index], axis=0)) for index in values}


def _drawn(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if values.size <= DRAWN:
        return values
    return np.append(values[random.integers(0, values.size, DRAWN)], [values.min(), values.max()])


def ranged(content: bytes) -> list[int]:
    """Numbers of what the operations of a float file compute, where the converter has found the extremes.

    Its inputs are left out: their extremes mean something, such as 0 and 255 for pixels.
    """
    graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    operators = map(graph.Operators, range(graph.OperatorsLength()))
    made = {int(index) for operator in operators for index in operator.OutputsAsNumpy()}
    return sorted(index for index in made if index >= 0 and _has_ends(graph, index))


def _has_ends(graph: Any, index: int) -> bool:
    ends = graph.Tensors(index).Quantization()
    return ends is not None and ends.MinLength() == ends.MaxLength() == 1


def narrowed(content: bytes, found: dict[int, Observed]) -> bytes:
    """The float file with ranges of the least mean squared error: rarely reached ends are cut off."""
    edited = bytearray(content)
    graph = schema.Model.GetRootAs(edited, 0).Subgraphs(0)
    for index in ranged(content):
        if index in found:
            ends = graph.Tensors(index).Quantization()
            lows, highs = ends.MinAsNumpy(), ends.MaxAsNumpy()  # views of `edited`
            lows[0], highs[0] = least_error(found[index].values, float(lows[0]), float(highs[0]))
    return bytes(edited)


def least_error(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The ends within [low, high] between which rounding to 256 levels has the least mean squared error."""
    values = values[:: len(values) // JUDGED + 1].astype(np.float32)
    ends = [min(low, 0.0), max(high, 0.0)]
    least = _error(values, *ends)
    for _ in range(2):
        for side in (0, 1):
            tried = [(_error(values, *_with(ends, side, share)), share) for share in SHARES]
            error, share = min(tried)
            if error < least:
                least, ends = error, _with(ends, side, share)
    return ends[0], ends[1]


def _with(ends: list[float], side: int, share: float) -> list[float]:
    return [end * share if place == side else end for place, end in enumerate(ends)]


def _error(values: np.ndarray, low: float, high: float) -> float:
    step = (high - low) / 255.0
    if step <= 0.0:
        return float("inf")
    zero = np.round(-low / step)
    levels = np.clip(np.round(values / step) + zero, 0.0, 255.0)
    return float(np.mean(np.square((levels - zero) * step - values)))
