"""LaProp: momentum of gradients that were divided by their second moment before. arXiv:2002.04839."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments, _kernels
from tfopt.optimizers._arithmetic import bias_correction, mix
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class LaProp(RuleOptimizer):
    """Adam that divides each gradient by its second moment first, and takes the momentum afterwards.

    For noisy gradients and unusual pairs of betas: Adam's steps can become arbitrarily large if `beta_2` is
    small against `beta_1`, those of LaProp stay below the learning rate over sqrt(1 - beta_2).

        v = beta_2 * v + (1 - beta_2) * g**2
        m = beta_1 * m + (1 - beta_1) * g / (sqrt(v / (1 - beta_2**t)) + epsilon)
        w = w - learning_rate * m / (1 - beta_1**t)

    Memory: 2 slots. Cost: elementwise, three kernels.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        beta_1: Float in [0, 1). Share of the momentum that stays.
        beta_2: Float in [0, 1). Share of the second moment that stays.
        epsilon: Float >= 0. Keeps the division finite.
        **base_options: `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`, ...: see
            `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.LaProp(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.9, 2.1], dtype=float32)

    Differs from: The authors' code, which keeps the learning rate inside the momentum, so that steps follow
    a schedule later than in the paper, and whose weight decay does not follow the learning rate. Under a
    constant rate without decay both give the same.

    References:
        Ziyin, Wang, Ueda, "LaProp: Separating Momentum and Adaptivity in Adam", 2020. arXiv:2002.04839.
    """

    slots = (Slot("momentum"), Slot("velocity"))
    several_passes = True

    def __init__(
        self,
        learning_rate: Any = 0.0004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-15,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.beta_1 = _arguments.fraction("beta_1", beta_1)
        self.beta_2 = _arguments.fraction("beta_2", beta_2)
        self.epsilon = _arguments.not_negative("epsilon", epsilon)

    @property
    def has_kernel(self) -> bool:
        """False if a beta is 0, by which the fused kernels divide."""
        return self.beta_1 > 0 and self.beta_2 > 0

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """The learning rate with the bias correction of m, and the root of that of v."""
        return {
            "rate": learning_rate / bias_correction(self.beta_1, step),
            "root": tf.sqrt(bias_correction(self.beta_2, step)),
        }

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithm 1 of the paper, where the betas are mu and nu."""
        v = mix(slots[1], tf.square(grad), self.beta_2)
        m = mix(slots[0], self._divided(grad, v, scalars), self.beta_1)
        return param - scalars["rate"] * m, (m, v)

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        """The same by TensorFlow's kernels."""
        m, v = slots
        _kernels.follow(v, tf.square(grad), self.beta_2)
        _kernels.follow(m, self._divided(grad, _kernels.read(v, grad.dtype), scalars), self.beta_1)
        _kernels.descend(param, scalars["rate"], _kernels.read(m, grad.dtype))

    def _divided(self, grad: tf.Tensor, v: tf.Tensor, scalars: Scalars) -> tf.Tensor:
        return tf.math.divide_no_nan(grad, tf.sqrt(v) / scalars["root"] + self.epsilon)
