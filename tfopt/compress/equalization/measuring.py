"""How large the channels of a model's tensors become, from data or from the weights that make them."""

from dataclasses import dataclass, field
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from tfopt.compress._data import pairs
from tfopt.compress._graph import Call, Graph
from tfopt.compress.equalization.units import DEPTHWISE, READERS, Units, layers_of, spread
from tfopt.compress.quantization import rules

L = keras.layers
ops = keras.ops


@final
@dataclass
class Ranges:
    """Sizes of channels.

    Attributes:
        share: Of each unit, its largest magnitude as a share of its tensor's, at most 1; 0 for unknown.
        floor: Index of a tensor -> of each channel a value below which it (nearly) never falls: its
            smallest, and not above the mean minus three deviations.
    """

    share: np.ndarray
    floor: dict[int, np.ndarray] = field(default_factory=dict)


def measured(graph: Graph, units: Units, data: Any) -> Ranges:
    """The sizes of all channels that could be scaled."""
    ranges = Ranges(np.zeros(len(units.fixed)))
    indices, statistics = _statistics(graph, units)
    if not indices:
        return ranges
    sums: list[Any] = []
    for inputs, _ in pairs(data):
        found = [np.asarray(value, np.float64) for value in statistics(inputs)]
        sums.append(np.split(np.concatenate(found), np.cumsum([len(value) for value in found])[:-1]))
    if not sums:
        raise ValueError("`data` must have at least one batch. Received an empty dataset.")
    for place, index in enumerate(indices):
        largest, smallest, mean, square = (
            np.stack([batch[4 * place + part] for batch in sums]) for part in range(4)
        )
        deviation = np.sqrt(np.maximum(square.mean(0) - mean.mean(0) ** 2, 0.0))
        _note(ranges, units.of[index], largest.max(0))
        ranges.floor[index] = np.minimum(smallest.min(0), mean.mean(0) - 3 * deviation)
    return ranges


def _note(ranges: Ranges, numbers: np.ndarray, sizes: np.ndarray) -> None:
    np.maximum.at(ranges.share, numbers, sizes / max(float(sizes.max()), 1e-30))


def _statistics(graph: Graph, units: Units) -> tuple[list[int], Any]:
    """The tensors that int8 rounds and whose channels can be scaled, and a function of inputs for their
    largest magnitudes, smallest values, means and mean squares by channel, one array after the other."""
    indices: list[int] = []
    outputs: list[Any] = []

    def run(call: Call, args: tuple, kwargs: dict) -> Any:
        made = call.operation(*args, **kwargs)
        numbers = units.of[call.outputs[0]]
        if not units.fixed[numbers].all() and not rules.fuses_forward(graph, call):
            x = ops.cast(made, "float32")
            axes = tuple(range(len(x.shape) - 1))
            indices.append(call.outputs[0])
            outputs.extend([ops.max(ops.abs(x), axes), ops.min(x, axes)])
            outputs.extend([ops.mean(x, axes), ops.mean(ops.square(x), axes)])
        return made

    replayed = graph.replay(run)
    if not outputs:
        return [], None
    model = keras.Model(replayed.input, outputs)
    return indices, tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)


def estimated(graph: Graph, units: Units, scales: np.ndarray) -> Ranges:
    """As the paper does: the largest weight that makes a channel, and its bias.

    Args:
        graph: The model.
        units: Of the graph.
        scales: What each unit is divided by: weights that read it grow.
    """
    ranges = Ranges(np.zeros(len(units.fixed)))
    for layer, name in layers_of(graph, units, (*READERS, *DEPTHWISE)):
        makes = units.makes[name]
        reading, places = spread(layer, units.reads[name], np.arange(len(makes)))
        kernel = np.abs(layer.kernel.numpy()).reshape(-1, *layer.kernel.shape[-2:]).max(0) * scales[reading]
        sizes = np.zeros(len(makes))
        np.maximum.at(sizes, places, kernel)
        _note(ranges, makes, sizes + np.abs(layer.bias.numpy()) if layer.use_bias else sizes)
    for layer, name in layers_of(graph, units, (L.BatchNormalization,)):
        size = 3 * np.abs(layer.gamma.numpy()) if layer.scale else np.ones(len(units.makes[name]))
        _note(ranges, units.makes[name], size + np.abs(layer.beta.numpy()) if layer.center else size)
    return ranges
