"""ADOPT: Adam divided by the previous second moment; converges with any beta_2. arXiv:2411.02853."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments, _kernels
from tfopt.optimizers._arithmetic import mix
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class ADOPT(RuleOptimizer):
    """Adam that divides by the second moment of before this gradient, and so converges with any beta_2.

    A replacement for Adam at Adam's learning rates, where training with a high noise of the gradients
    is unstable. The first call only sets the second moment.

        v = g**2                                                          (first step, no update)
        u = clip(g / max(sqrt(v), epsilon), -(t-1)**0.25, (t-1)**0.25)
        m = beta_1 * m + (1 - beta_1) * u;  w = w - learning_rate * m
        v = beta_2 * v + (1 - beta_2) * g**2

    Memory: 2 slots. Cost: elementwise.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        beta_1: Float in [0, 1). Share of the first moment that stays.
        beta_2: Float in [0, 1). Share of the second moment that stays.
        epsilon: Float > 0. Smallest divisor.
        **base_options: `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`, ...: see
            `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.ADOPT(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.99, 2.01], dtype=float32)

    Differs from: timm, whose default exponent is 1/3, and pytorch_optimizer, which counts one step
    more.

    References:
        Taniguchi et al., "ADOPT: Modified Adam Can Converge with Any beta_2 with the Optimal Rate",
        NeurIPS 2024. arXiv:2411.02853.
    """

    slots = (Slot("momentum"), Slot("velocity"))
    several_passes = True

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.9999,
        epsilon: float = 1e-6,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.beta_1 = _arguments.fraction("beta_1", beta_1)
        self.beta_2 = _arguments.fraction("beta_2", beta_2)
        self.epsilon = _arguments.positive("epsilon", epsilon)

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """The bound of the clipping counts from the first real step."""
        return {"learning_rate": learning_rate, "first": step < 2, "bound": tf.maximum(step - 1, 0) ** 0.25}

    @property
    def has_kernel(self) -> bool:
        """The kernels divide by the betas."""
        return self.beta_1 > 0 and self.beta_2 > 0

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithm 2 of the paper with the clipping of its section 5."""
        m, v = slots
        square = tf.square(grad)
        u = grad / tf.maximum(tf.sqrt(v), self.epsilon)
        u = tf.clip_by_value(u, -scalars["bound"], scalars["bound"])
        m = tf.where(scalars["first"], m, mix(m, u, self.beta_1))
        v = tf.where(scalars["first"], square, mix(v, square, self.beta_2))
        return param - scalars["learning_rate"] * m, (m, v)

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        """The same: at the first step the bound makes u = 0, and v, which is 0, gets the full square."""
        m, v = slots
        u = grad / tf.maximum(tf.sqrt(_kernels.read(v, grad.dtype)), self.epsilon)
        u = tf.clip_by_value(u, -scalars["bound"], scalars["bound"])
        _kernels.follow(m, u, self.beta_1)
        _kernels.descend(param, scalars["learning_rate"], _kernels.read(m, grad.dtype))
        full = tf.where(scalars["first"], tf.constant(1 / (1 - self.beta_2), grad.dtype), 1)
        with tf.control_dependencies([u]):
            _kernels.follow(v, full * tf.square(grad), self.beta_2)
