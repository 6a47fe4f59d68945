"""Gradient centralization: the gradient of every output unit gets mean 0. arXiv:2004.01461."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers._geometry import Geometry
from tfopt.optimizers._kernel_table import geometries
from tfopt.optimizers._slots import slot_dtype
from tfopt.optimizers._wrapper import OptimizerWrapper


@keras.saving.register_keras_serializable(package="tfopt")
class GradientCentralization(OptimizerWrapper):
    """Removes from the gradient of each output unit its mean over the inputs.

    Regularizes convolutional and dense layers at no cost. Biases, norms, embeddings, and kernels with one
    input stay as they are. The layer of a kernel says which of its axes are inputs.

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

    Differs from: `optax.centralize`, which averages over the axes that suit (out, in) kernels.

    References:
        Yong, Huang, Hua, Zhang, "Gradient Centralization: A New Optimization Technique for Deep Neural
        Networks", ECCV 2020. arXiv:2004.01461.
    """

    def build_own(self, variables: Any) -> None:
        """Asks the layers what the axes of their kernels mean."""
        self._geometries = geometries(variables)

    def step(self, grads: list[Any], variables: list[Any]) -> None:
        """The inner step with centralized gradients."""
        own = [self._geometries[self._get_variable_index(variable)] for variable in variables]
        centralized = [_centralized(*each) for each in zip(grads, variables, own)]
        self.inner_optimizer.apply(centralized, variables)


def _centralized(grad: Any, variable: Any, geometry: Geometry) -> Any:
    if isinstance(grad, tf.IndexedSlices) or not geometry.is_kernel:
        return grad
    if all(geometry.shape[axis] == 1 for axis in geometry.inputs):
        return grad
    mean = tf.reduce_mean(tf.cast(grad, slot_dtype(variable)), geometry.inputs, keepdims=True)
    return grad - tf.cast(mean, grad.dtype)
