"""equalize: a copy that computes the same with channels of equal size, which int8 rounds less."""

from typing import Any

import keras
import numpy as np

from tfopt.compress._clone import in_float32
from tfopt.compress._folding import folded
from tfopt.compress._graph import Graph
from tfopt.compress._kernels import refuse_keras_quantized
from tfopt.compress._ports import check_model
from tfopt.compress.equalization.absorption import absorb_biases
from tfopt.compress.equalization.measuring import Ranges, estimated, measured
from tfopt.compress.equalization.units import DEPTHWISE, READERS, Units, layers_of, spread

L = keras.layers

ROUNDS = 20  # of the alternation between units; a chain of ten layers settles in about as many
LIMIT = 1e4  # a scale beyond it belongs to a channel that is all but dead


def equalize(model: keras.Model, data: Any = None) -> keras.Model:
    """Returns a copy that computes the same, with channels of equal size, batch normalizations folded.

    An int8 tensor has one scale for all its channels: a channel a hundred times smaller than another has two
    or three of the 256 levels. Where only layers that keep scales lie between two kernels (ReLU, leaky ReLU,
    PReLU, pooling, padding, sums, concatenations), the first can make a channel smaller and the second take
    it larger. Use it before `export(quantization="int8")` and `quantize_aware` for networks with uneven
    channels, such as depthwise ones; where channels are even already, it does nothing.

        s_c = sqrt(a_c / w_c);  first kernel and bias / s_c, second kernel * s_c

    a_c is the largest magnitude of a channel, w_c that of the weights that read it, both as shares of the
    largest of their tensor. Where only depthwise kernels read a channel, s_c = a_c: they have a scale for
    each channel.

    With data, biases that keep a channel above zero all the time move through its ReLU into the next layer,
    as far as the mean minus three deviations; the range starts at zero then.

    Args:
        model: A built Functional or Sequential model; models nested in it are opened.
        data: Some batches of inputs, as the model takes them, to measure the channels. Without, they are
            estimated from the kernels and biases that make them.

    Returns:
        A flat `keras.Model`, in float32. Not compiled.

    Raises:
        ValueError: If the model is not built, or was quantized by Keras.

    Example:
        >>> even = tfopt.compress.equalize(model, train.take(8))
        >>> tfopt.compress.export(even, "even.tflite", "int8", train)

    Differs from the paper: magnitudes of activations instead of those of the first kernel, which has a scale
    for each channel in TFLite; chains with any number of readers, residual sums and concatenations. ReLU6 is
    not taken for ReLU: it stays as it is, with the channels around it.

    References:
        Nagel et al.: Data-Free Quantization Through Weight Equalization and Bias Correction. arXiv:1906.04721
        Xiao et al.: SmoothQuant. arXiv:2211.10438
    """
    check_model(model)
    refuse_keras_quantized(model, "equalized")
    copy = folded(in_float32(model))
    graph = Graph(copy)
    units = Units(graph)
    ranges = None if data is None else measured(graph, units, data)
    scales = _scales(graph, units, ranges)
    _rescale(graph, units, scales)
    if ranges is not None:
        absorb_biases(graph, units, ranges, scales)
    return copy


def _scales(graph: Graph, units: Units, ranges: Ranges | None) -> np.ndarray:
    """The number that each unit is divided by; without ranges, they are estimated anew in each round."""
    logarithms = np.zeros(len(units.fixed))
    for _ in range(ROUNDS):
        known = ranges or estimated(graph, units, np.exp(logarithms))
        activations = _logarithm(known.share)
        free = ~units.fixed & ~np.isnan(activations)
        weights = _logarithm(_weight_shares(graph, units, np.exp(logarithms)))
        # Read by depthwise kernels alone: there is no weight to care for.
        step = np.where(
            ~np.isnan(weights), (activations - logarithms - weights) / 2, activations - logarithms
        )
        step = np.where(free, step, 0.0)
        logarithms = np.clip(logarithms + step, -np.log(LIMIT), np.log(LIMIT))
    return np.exp(logarithms)


def _logarithm(share: np.ndarray) -> np.ndarray:
    """NaN where nothing is known."""
    return np.log(np.where(share > 0.0, share, np.nan))


def _weight_shares(graph: Graph, units: Units, scales: np.ndarray) -> np.ndarray:
    """Of each unit, its largest weight in the kernels that read it, as a share of the output's largest."""
    shares = np.zeros(len(units.fixed))
    for layer, name in layers_of(graph, units, READERS):
        reading, _ = spread(layer, units.reads[name], units.makes[name])
        kernel = np.abs(layer.kernel.numpy()).reshape(-1, *layer.kernel.shape[-2:]).max(0) * scales[reading]
        inputs = 1 if isinstance(layer, L.Conv2DTranspose) else 0
        largest = kernel.max() if isinstance(layer, L.Dense) else kernel.max(inputs, keepdims=True)
        np.maximum.at(shares, reading, kernel / np.maximum(largest, 1e-30))
    return shares


def _rescale(graph: Graph, units: Units, scales: np.ndarray) -> None:
    """Divides what makes each unit, and multiplies what reads it."""
    for layer, name in layers_of(graph, units, (*READERS, *DEPTHWISE)):
        reading, making = spread(layer, units.reads[name], units.makes[name])
        layer.kernel.assign(layer.kernel.numpy() * (scales[reading] / scales[making]))
        if layer.use_bias:
            layer.bias.assign(layer.bias.numpy() / scales[units.makes[name]])
    for layer, name in layers_of(graph, units, (L.BatchNormalization,)):
        before, after = scales[units.reads[name]], scales[units.makes[name]]
        layer.moving_mean.assign(layer.moving_mean.numpy() / before)
        if layer.scale:
            layer.gamma.assign(layer.gamma.numpy() * before / after)
        if layer.center:
            layer.beta.assign(layer.beta.numpy() / after)
