"""Biases that keep a channel above zero move through its ReLU into the layers that read it."""

from typing import Any

import keras
import numpy as np

from tfopt.compress._graph import Call, Graph
from tfopt.compress.equalization.measuring import Ranges
from tfopt.compress.equalization.units import DEPTHWISE, READERS, Units, spread

L = keras.layers
A = keras.activations

# What a constant passes through as it is. Padding is not among them: its zeros would stay.
_CONSTANT = (
    *(L.Dropout, L.SpatialDropout1D, L.SpatialDropout2D, L.Identity, L.Flatten),
    *(L.MaxPooling1D, L.MaxPooling2D, L.AveragePooling1D, L.AveragePooling2D),
    *(L.GlobalMaxPooling1D, L.GlobalMaxPooling2D, L.GlobalAveragePooling1D, L.GlobalAveragePooling2D),
    *(L.UpSampling1D, L.UpSampling2D),
)


def absorb_biases(graph: Graph, units: Units, ranges: Ranges, scales: np.ndarray) -> None:
    """Makes the ranges of such channels start at zero.

    Args:
        graph: The model, already scaled.
        units: Of the graph.
        ranges: From data, before it was scaled.
        scales: What each unit was divided by.
    """
    calls: dict[str, int] = {}
    for call in graph.calls:
        calls[call.name] = calls.get(call.name, 0) + 1
    for call in graph.calls:
        layer = call.operation
        if type(layer) not in (*READERS, *DEPTHWISE) or not layer.use_bias or calls[call.name] > 1:
            continue
        activated = _activated(graph, call)
        readers = [] if activated is None else _readers(graph, activated)
        if not readers or activated not in ranges.floor or any(calls[each.name] > 1 for each in readers):
            continue
        units_of = units.of[activated]
        surplus = np.maximum(ranges.floor[activated] / scales[units_of], 0.0) * ~units.fixed[units_of]
        if surplus.any():
            layer.bias.assign(layer.bias.numpy() - surplus)
            for reader in readers:
                _add(reader.operation, _through(graph, activated, reader, surplus))


def _activated(graph: Graph, call: Call) -> int | None:
    """The tensor behind the layer's ReLU, inside it or the only layer that follows."""
    (output,) = call.outputs
    if call.operation.activation is not A.linear:
        return output
    consumers = graph.consumers[output]
    relu = len(consumers) == 1 and output not in graph.outputs and consumers[0].operation
    if isinstance(relu, L.ReLU | L.LeakyReLU | L.PReLU):
        return consumers[0].outputs[0]
    return None


def _readers(graph: Graph, index: int) -> list[Call]:
    """The layers that read a tensor, or none if one of them cannot take the constant."""
    found: list[Call] = []
    ahead = [index]
    while ahead:
        tensor = ahead.pop()
        if tensor in graph.outputs or not graph.consumers[tensor]:
            return []
        for call in graph.consumers[tensor]:
            if type(call.operation) in _CONSTANT:
                ahead.append(call.outputs[0])
            elif _takes_constant(call.operation):
                found.append(call)
            else:
                return []
    return found


def _takes_constant(layer: Any) -> bool:
    if (
        type(layer) not in (*READERS, *DEPTHWISE)
        or isinstance(layer, L.Conv2DTranspose)
        or not layer.use_bias
    ):
        return False
    small = isinstance(layer, L.Dense) or set(layer.kernel_size) == {1}
    return small or layer.padding == "valid"


def _through(graph: Graph, index: int, reader: Call, surplus: np.ndarray) -> np.ndarray:
    """The constants as the reader sees them: `Flatten` repeats them for each place."""
    width = graph.tensor(reader.inputs[0]).shape[-1]
    return np.tile(surplus, width // len(surplus))


def _add(layer: Any, constants: np.ndarray) -> None:
    count = layer.bias.shape[0]
    reading, making = spread(layer, constants, np.arange(count))
    kernel = layer.kernel.numpy().reshape(-1, *layer.kernel.shape[-2:]).sum(0)
    added = np.zeros(count)
    np.add.at(added, making, kernel * reading)
    layer.bias.assign(layer.bias.numpy() + added)
