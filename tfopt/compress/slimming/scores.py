"""How much each unit of channels matters: by batch-norm scale, by the norm of its weights, by the loss."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt.compress.slimming.channels import Channels, Numbers
from tfopt.compress.slimming.rules import weights


def bn_scale(channels: Channels) -> np.ndarray:
    """Mean |gamma| of the batch normalizations that a unit passes; NaN without one (Liu et al., 2017)."""
    scales = [
        call.operation.gamma
        for call in channels.graph.calls
        if isinstance(call.operation, keras.layers.BatchNormalization) and call.operation.scale
    ]
    total, count = np.zeros(len(channels.unit)), np.zeros(len(channels.unit))
    for weight, units, _ in _makers(channels):
        if any(weight is scale for scale in scales):
            np.add.at(total, units, np.abs(np.asarray(weight)))
            np.add.at(count, units, 1)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def l2(channels: Channels) -> np.ndarray:
    """Root mean square of the norms of the kernels that make a unit, batch normalization folded in."""
    total, count = np.zeros(len(channels.unit)), np.zeros(len(channels.unit))
    for weight, units, axis in _makers(channels):
        if len(weight.shape) < 2:
            continue
        kernel, norm = np.asarray(weight, np.float64), channels.folded.get(id(weight))
        if norm is not None:
            factor, rest = _factor(norm), kernel.shape[axis:]
            # A depthwise kernel makes (inputs, multiplier) channels; behind the outputs of others are inputs.
            ones = (1,) * (len(rest) - 1)
            kernel = kernel * factor.reshape(rest if factor.size == np.prod(rest) else (rest[0], *ones))
        np.add.at(total, units, np.sum(np.square(kernel), axis=_others(kernel, axis)))
        np.add.at(count, units, 1)
    return np.sqrt(np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0))


def taylor(channels: Channels, model: keras.Model, data: Iterable) -> np.ndarray:
    """Mean over batches of the squared change of the loss if a unit went, to first order.

    Molchanov et al., 2019: (sum of weight * gradient over the weights that make the unit)^2.

    Args:
        channels: Of the model.
        model: Compiled with its loss.
        data: Batches of (inputs, labels), or (inputs, labels, sample weights).
    """
    makers = list(_makers(channels))
    total, batches = np.zeros(len(channels.unit)), 0
    gradients = _gradients(model, [weight for weight, _, _ in makers])
    for element in data:
        change = np.zeros(len(channels.unit))
        for (weight, units, axis), gradient in zip(makers, gradients(*element)):
            product = np.asarray(weight, np.float64) * gradient.numpy()
            np.add.at(change, units, product.sum(axis=_others(product, axis)))
        total += np.square(change)
        batches += 1
    made: np.ndarray = np.zeros(len(total), bool)
    for _, units, _ in makers:
        made[units] = True
    return np.where(made, total / max(batches, 1), np.nan)


def _makers(channels: Channels) -> Iterator[tuple[Any, Numbers, int]]:
    """Every weight that makes channels: the unit of each entry along its axis, and the axis."""
    seen = set()
    for call in channels.graph.calls:
        for weight in weights(call):
            axis = channels.made.get(id(weight))
            if axis is not None and id(weight) not in seen:
                seen.add(id(weight))
                yield weight, channels.unit[channels.axes[id(weight)][axis]], axis


def _factor(norm: keras.layers.BatchNormalization) -> np.ndarray:
    scale = 1.0 / np.sqrt(np.asarray(norm.moving_variance, np.float64) + norm.epsilon)
    return scale * np.asarray(norm.gamma) if norm.scale else scale


def _others(array: np.ndarray, axis: int) -> tuple[int, ...]:
    return tuple(other for other in range(array.ndim) if other != axis)


def _gradients(model: keras.Model, variables: list) -> Any:
    @tf.function(reduce_retracing=True)
    def gradients(inputs: Any, labels: Any, weights: Any = None) -> list:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for variable in variables:
                tape.watch(variable.value)
            outputs = model(inputs, training=False)
            loss = model.compute_loss(inputs, labels, outputs, weights, training=False)
        values = [variable.value for variable in variables]
        return tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    return gradients
