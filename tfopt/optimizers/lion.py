"""Lion: the sign of an interpolated momentum. arXiv:2302.06675."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments, _kernels
from tfopt.optimizers._arithmetic import mix
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class Lion(RuleOptimizer):
    """Steps of equal size along the sign of a momentum: Keras's Lion, compiled for large variables.

    Saves one slot against Adam. Take a learning rate 3 to 10 times smaller than for AdamW and a
    weight decay as much larger. Fragile with small batches.

        w = w - learning_rate * sign(beta_1 * m + (1 - beta_1) * g)
        m = beta_2 * m + (1 - beta_2) * g

    Memory: 1 slot. Cost: elementwise.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        beta_1: Float in [0, 1). Share of the momentum in the direction of the step.
        beta_2: Float in [0, 1). Share of the momentum that stays.
        **base_options: `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`, ...: see
            `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.Lion(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.9, 2.1], dtype=float32)

    References:
        Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023.
        arXiv:2302.06675.
    """

    slots = (Slot("momentum"),)
    several_passes = True

    def __init__(
        self, learning_rate: Any = 0.001, beta_1: float = 0.9, beta_2: float = 0.99, **base_options: Any
    ):
        super().__init__(learning_rate, **base_options)
        self.beta_1 = _arguments.fraction("beta_1", beta_1)
        self.beta_2 = _arguments.fraction("beta_2", beta_2)

    @property
    def has_kernel(self) -> bool:
        """The kernels divide by beta_2."""
        return self.beta_2 > 0

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Program 1 of the paper."""
        (m,) = slots
        direction = tf.sign(mix(m, grad, self.beta_1))
        return param - scalars["learning_rate"] * direction, (mix(m, grad, self.beta_2),)

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        """The same by TensorFlow's kernels."""
        old = _kernels.read(slots[0], grad.dtype)
        direction = tf.sign(mix(old, grad, self.beta_1))
        _kernels.descend(param, scalars["learning_rate"], direction)
        with tf.control_dependencies([direction]):  # `old` is no more in use and need not be copied
            _kernels.follow(slots[0], grad, self.beta_2)
