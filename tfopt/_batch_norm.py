"""Recomputes the statistics of batch normalization, exactly, over a stream of batches.

Averaged, pruned or otherwise edited weights no longer fit the moving mean and variance that were gathered
while they trained.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt._checks import check_integer
from tfopt._keras_internals import leaf_layers


def reestimate(
    model: keras.Model,
    dataset: Iterable[Any],
    *,
    steps: int | None = None,
    layers: Sequence[keras.Layer] | None = None,
) -> None:
    """Sets every moving mean and variance to that of all the inputs of its layer, over the whole dataset.

    The layers normalize by the statistics of the batch while they are measured, everything else runs as
    in inference: no dropout, no other state changes. Mean and variance are pooled over the batches
    (weighted by their size), so that the first layer's equal those of the data. Frozen layers are
    included.

    Args:
        model: A built model.
        dataset: Batches as `fit` takes them, at least one; as large as in training.
        steps: Number of batches to use, >= 1; None is all.
        layers: The `BatchNormalization` layers to renew; None is all.

    Raises:
        ValueError: If the dataset is empty.

    Differs from `torch.optim.swa_utils.update_bn`: inference mode elsewhere, and the variance between
    batches counts.

    References:
        Wu and Johnson, "Rethinking 'Batch' in BatchNorm" (precise statistics), 2021, arXiv:2105.07576.
    """
    Reestimation(model, layers)(dataset, steps)


class Reestimation:
    """What `reestimate` does, for one model again and again: its graph is traced at the first call only.

    Args:
        model: A built model, whose layers stay the same.
        layers: As for `reestimate`.
    """

    def __init__(self, model: keras.Model, layers: Sequence[keras.Layer] | None = None) -> None:
        self._model = model
        self._normalizers = [
            layer
            for layer in (leaf_layers(model) if layers is None else layers)
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        self._traced: dict[str, Any] = {}

    def __call__(self, dataset: Iterable[Any], steps: int | None = None) -> None:
        """Renews the statistics; arguments and errors are those of `reestimate`."""
        if steps is not None:
            check_integer("steps", steps, minimum=1)
        if not self._normalizers:
            return
        totals = _sum_over_batches(self._measure(dataset), dataset, steps)
        for layer, (count, total, squares) in zip(self._normalizers, totals):
            mean = total / count
            layer.moving_mean.assign(mean.astype("float32"))
            layer.moving_variance.assign(np.maximum(squares / count - mean**2, 0.0).astype("float32"))

    def _measure(self, dataset: Iterable[Any]) -> Any:
        """A function that runs the model on a batch, traced for batches of this form."""
        signature = [dataset.element_spec] if isinstance(dataset, tf.data.Dataset) else None
        form = repr(signature)
        if form not in self._traced:
            self._traced[form] = tf.function(self._run, input_signature=signature, reduce_retracing=True)
        return self._traced[form]

    def _run(self, batch: Any) -> list[list[tf.Tensor]]:
        """Count, sum and sum of squares of every layer's inputs, per channel, in float64."""
        records: dict[int, list[list[tf.Tensor]]] = {id(layer): [] for layer in self._normalizers}
        for layer in self._normalizers:
            layer.call = _measuring_call(layer, records[id(layer)])
        try:
            self._model(keras.utils.unpack_x_y_sample_weight(batch)[0], training=False)
        finally:
            for layer in self._normalizers:
                del layer.call
        # A layer that is called twice pools both calls.
        return [[tf.add_n(parts) for parts in zip(*records[id(layer)])] for layer in self._normalizers]


def _sum_over_batches(measure: Any, dataset: Iterable[Any], steps: int | None) -> list[list[np.ndarray]]:
    """The sums over all batches."""
    totals: list[list[np.ndarray]] = []
    for number, batch in enumerate(dataset):
        if steps is not None and number >= steps:
            break
        sums = [[part.numpy() for part in parts] for parts in measure(batch)]
        totals = [[a + b for a, b in zip(*pair)] for pair in zip(totals, sums)] if totals else sums
    if not totals:
        raise ValueError("`dataset` must yield at least one batch. Received: an empty dataset.")
    return totals


def _measuring_call(layer: keras.Layer, record: list[list[tf.Tensor]]) -> Any:
    """A `call` that normalizes by the batch and records its count, sum and sum of squares."""

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        x = tf.cast(inputs, tf.float32)
        axis = layer.axis % x.shape.rank
        gamma = layer.gamma if layer.scale else tf.ones((x.shape[axis],))
        beta = layer.beta if layer.center else tf.zeros((x.shape[axis],))
        if x.shape.rank == 4 and axis == 3:
            outputs, mean, variance, count = _fused(x, gamma, beta, layer.epsilon)
        else:
            mean, variance, count = _moments(x, axis, mask)
            outputs = keras.ops.batch_normalization(x, mean, variance, axis, beta, gamma, layer.epsilon)
        count, wide = tf.cast(count, tf.float64), tf.cast(mean, tf.float64)
        record.append([count, count * wide, count * (tf.cast(variance, tf.float64) + wide**2)])
        return tf.cast(outputs, layer.compute_dtype)

    return call


def _fused(x: tf.Tensor, gamma: Any, beta: Any, epsilon: float) -> tuple[tf.Tensor, ...]:
    """Images in one pass over the pixels, several times faster than `tf.nn.moments`."""
    outputs, mean, variance = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon, is_training=True
    )[:3]
    count = tf.size(x) / tf.shape(x)[-1]
    # The kernel reports the unbiased variance, which is not what it normalizes by.
    return outputs, mean, variance * tf.cast((count - 1) / count, tf.float32), count


def _moments(x: tf.Tensor, axis: int, mask: Any) -> tuple[tf.Tensor, ...]:
    others = [index for index in range(x.shape.rank) if index != axis]
    if mask is None:
        return *tf.nn.moments(x, others), tf.size(x) / tf.shape(x)[axis]
    weights = tf.cast(mask, tf.float32)[..., tf.newaxis]
    return *tf.nn.weighted_moments(x, others, weights), tf.reduce_sum(weights)
