"""Moving statistics of batch normalization, which Keras leaves different on every replica."""

from typing import Any

import keras
import tensorflow as tf

from tfopt import _keras_internals


def diverge(strategy: tf.distribute.Strategy) -> bool:
    """Whether every replica keeps moving statistics of its own: the self-test of the bug."""
    with strategy.scope():
        layer = keras.layers.BatchNormalization()
        layer.build((None, 1))
    return layer.moving_mean.aggregation == "none"


def average(model: keras.Model) -> None:
    """Gives all replicas the mean of their moving statistics, in one reduction.

    All workers must call it together. Layers whose statistics do not differ are left alone: frozen and
    synchronized ones.
    """
    strategy = model.distribute_strategy
    variables = [variable for layer in _layers(model) for variable in _statistics(layer)]
    if not variables or strategy.num_replicas_in_sync == 1:
        return

    def packed() -> tf.Tensor:
        # In float64, the mean of equal float32 numbers is that number: averaging twice changes nothing.
        return tf.concat([tf.reshape(tf.cast(v.value, tf.float64), [-1]) for v in variables], 0)

    means = strategy.reduce(tf.distribute.ReduceOp.MEAN, strategy.run(tf.function(packed)), axis=None)
    parts = tf.split(means, [int(tf.size(variable.value)) for variable in variables])
    for variable, part in zip(variables, parts):
        variable.assign(tf.cast(tf.reshape(part, variable.shape), variable.dtype))


def _layers(model: keras.Model) -> list[Any]:
    layers = _keras_internals.leaf_layers(model)
    return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]


def _statistics(layer: keras.layers.BatchNormalization) -> list[keras.Variable]:
    moving = layer.built and layer.trainable and not layer.synchronized
    return [layer.moving_mean, layer.moving_variance] if moving else []
