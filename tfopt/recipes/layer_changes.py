"""What compression left of each layer, for the report."""

import keras
import numpy as np

from tfopt import report
from tfopt._keras_internals import leaf_layers

_ZEROS = 0.01  # of a kernel: below it, zeros are chance


def layer_changes(before: keras.Model, after: keras.Model) -> list[report.LayerChange]:
    """Layers of two models with the same names that differ in channels, weights or zeros.

    Args:
        before: The float model.
        after: What became of it.
    """
    old = {layer.name: layer for layer in leaf_layers(before)}
    changes = []
    for layer in leaf_layers(after):
        kernels = [np.asarray(weight) for weight in layer.weights if len(weight.shape) > 1]
        if not kernels or layer.name not in old:
            continue
        zeros = sum(int((kernel == 0).sum()) for kernel in kernels) / sum(kernel.size for kernel in kernels)
        weights = old[layer.name].count_params(), layer.count_params()
        if weights[0] != weights[1] or zeros > _ZEROS:
            channels = _channels(old[layer.name]), _channels(layer)
            shown = zeros if zeros > _ZEROS else 0.0
            changes.append(report.LayerChange(layer.name, channels, weights, shown))
    return changes


def _channels(layer: keras.Layer) -> int:
    """Length of the last axis of what a layer makes."""
    return int(layer.compute_output_shape(layer.input.shape)[-1])
