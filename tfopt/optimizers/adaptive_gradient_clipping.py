"""Adaptive gradient clipping: a gradient may only be so large beside its weights. arXiv:2102.06171."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments
from tfopt.optimizers._kernel_table import geometries
from tfopt.optimizers._kernels import read
from tfopt.optimizers._slots import slot_dtype
from tfopt.optimizers._update import handle
from tfopt.optimizers._wrapper import OptimizerWrapper, refuse_inside
from tfopt.optimizers.gradient_accumulation import GradientAccumulation


@keras.saving.register_keras_serializable(package="tfopt")
class AdaptiveGradientClipping(OptimizerWrapper):
    """Clips the gradient of each output unit to a share of the norm of its weights.

    For networks without batch normalization and for large batches; the smaller the batch, the larger
    `clip_factor` may be. The paper leaves the last layer unclipped.

        g = g * min(1, clip_factor * max(norm(w), epsilon) / norm(g))      (norms of each output unit)

    Memory: none. Cost: two norms per variable.

    Args:
        optimizer: The Keras optimizer to wrap.
        clip_factor: Float > 0; lambda in the paper.
        epsilon: Float > 0. Smallest norm of weights, so that zeros can start to learn.
        **base_options: `name`.

    Raises:
        ValueError: If a number is out of its bounds or not finite, or if the inner optimizer accumulates
            gradients.

    Example:
        >>> optimizer = tfopt.optimizers.AdaptiveGradientClipping(keras.optimizers.SGD(1.0), clip_factor=0.1)
        >>> kernel = keras.Variable([[3.0], [4.0]])
        >>> optimizer.apply([tf.constant([[30.0], [40.0]])], [kernel])
        >>> kernel.numpy().round(2)
        array([[2.7],
               [3.6]], dtype=float32)

    References:
        Brock, De, Smith, Simonyan, "High-Performance Large-Scale Image Recognition Without
        Normalization", ICML 2021. arXiv:2102.06171.
    """

    def __init__(
        self, optimizer: Any, clip_factor: float = 0.01, epsilon: float = 0.001, **base_options: Any
    ):
        super().__init__(optimizer, **base_options)
        reason = "each part of its gradient would be clipped alone. Put it outside: GradientAccumulation("
        refuse_inside(
            self, self.inner_optimizer, (GradientAccumulation,), f"{reason}{type(self).__name__}(...), n)."
        )
        self.clip_factor = _arguments.positive("clip_factor", clip_factor)
        self.epsilon = _arguments.positive("epsilon", epsilon)

    def build_own(self, variables: Any) -> None:
        """Asks the layers what the axes of their kernels mean."""
        self._axes = [geometry.unit_axes for geometry in geometries(variables)]

    def step(self, grads: list[Any], variables: list[Any]) -> None:
        """The inner step with clipped gradients."""
        clipped = [self._clipped(grad, variable) for grad, variable in zip(grads, variables)]
        self.inner_optimizer.apply(clipped, variables)

    def _clipped(self, grad: Any, variable: Any) -> tf.Tensor:
        dtype, axes = slot_dtype(variable), self._axes[self._get_variable_index(variable)]
        grad = tf.cast(tf.convert_to_tensor(grad), dtype)
        size = _norm(tf.cast(read(handle(variable), variable.dtype), dtype), axes)
        limit = self.clip_factor * tf.maximum(size, self.epsilon)
        return tf.cast(grad * (limit / tf.maximum(_norm(grad, axes), limit)), variable.dtype)


def _norm(x: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    return tf.sqrt(tf.reduce_sum(tf.square(x), axes, keepdims=True))
