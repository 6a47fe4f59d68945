"""Gradient centralization: the gradient of every output unit gets mean 0. arXiv:2004.01461."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers._matrix import input_axes, is_vector
from tfopt.optimizers._slots import slot_dtype
from tfopt.optimizers._wrapper import OptimizerWrapper


@keras.saving.register_keras_serializable(package="tfopt")
class GradientCentralization(OptimizerWrapper):
    """Removes from the gradient of each output unit its mean over the inputs.

    Regularises convolutional and dense layers at no cost. Biases, variables with fewer than 2 axes, sparse
    gradients of embeddings, and kernels with one input stay as they are.

        g = g - mean of g over the input axes

    Memory: none. Cost: one mean per kernel.

    Args:
        optimizer: The Keras optimizer to wrap.
        **base_options: `name`.

    Raises:
        TypeError: If `optimizer` is not a Keras optimizer.

    Example:
        >>> optimizer = tfopt.optimizers.GradientCentralization(keras.optimizers.SGD(1.0))
        >>> kernel = keras.Variable([[0.0], [0.0]])
        >>> optimizer.apply([tf.constant([[1.0], [3.0]])], [kernel])
        >>> kernel.numpy()
        array([[ 1.],
               [-1.]], dtype=float32)

    Differs from: `optax.centralize`, which averages over the axes that suit (out, in) kernels. Keras
    kernels have the outputs last; depthwise kernels (height, width, channels, 1) and attention's (inputs,
    heads, units) on the last two axes.

    References:
        Yong, Huang, Hua, Zhang, "Gradient Centralization: A New Optimization Technique for Deep Neural
        Networks", ECCV 2020. arXiv:2004.01461.
    """

    def step(self, grads: list[Any], variables: list[Any]) -> None:
        """The inner step with centralized gradients."""
        centralized = [_centralized(grad, variable) for grad, variable in zip(grads, variables)]
        self.inner_optimizer.apply(centralized, variables)


def _centralized(grad: Any, variable: Any) -> Any:
    if isinstance(grad, tf.IndexedSlices) or is_vector(variable):
        return grad
    axes = input_axes(tuple(grad.shape))
    if all(grad.shape[axis] == 1 for axis in axes):
        return grad
    mean = tf.reduce_mean(tf.cast(grad, slot_dtype(variable)), axes, keepdims=True)
    return grad - tf.cast(mean, grad.dtype)
