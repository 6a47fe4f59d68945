"""Adan: Nesterov momentum from the difference of successive gradients. arXiv:2208.06677."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments, _kernels
from tfopt.optimizers._arithmetic import bias_correction, mix
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class Adan(RuleOptimizer):
    """Adaptive Nesterov momentum that estimates the gradient ahead from the last difference of gradients.

    For vision transformers and large batches, where it stands learning rates 5 to 10 times those of
    AdamW.

        d = g - previous g                                    (0 at the first step)
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * d
        n = beta_3 * n + (1 - beta_3) * (g + beta_2 * d)**2
        step = learning_rate * (m_hat + beta_2 * v_hat) / (sqrt(n_hat) + epsilon)
        w = (w - step) / (1 + learning_rate * weight_decay)

    Memory: 4 slots. Cost: elementwise, several kernels; compiled by XLA on large variables.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        beta_1: Float in [0, 1). Share of the mean gradient that stays.
        beta_2: Float in [0, 1). Share of the mean difference that stays.
        epsilon: Float >= 0. Keeps the division finite.
        beta_3: Float in [0, 1). Share of the mean square that stays.
        **base_options: `weight_decay` (in the proximal form above), `clipnorm`, `global_clipnorm`,
            `use_ema`, ...: see `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.Adan(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.9, 2.1], dtype=float32)

    Differs from: Optax (0.2.8), whose `adan` uses 1 - beta_2 where the paper has beta_2.

    References:
        Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models",
        TPAMI 2024. arXiv:2208.06677.
    """

    slots = (Slot("momentum"), Slot("difference"), Slot("square"), Slot("previous", is_gradient=True))
    decay_in_rule = True
    several_passes = True

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.98,
        beta_2: float = 0.92,
        epsilon: float = 1e-8,
        beta_3: float = 0.99,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.beta_1 = _arguments.fraction("beta_1", beta_1)
        self.beta_2 = _arguments.fraction("beta_2", beta_2)
        self.epsilon = _arguments.not_negative("epsilon", epsilon)
        self.beta_3 = _arguments.fraction("beta_3", beta_3)

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """Three bias corrections as factors, and 0 for the first step, which has no difference."""
        root = tf.sqrt(bias_correction(self.beta_3, step))
        return {
            "learning_rate": learning_rate,
            "rate": learning_rate * root,
            "epsilon": root * self.epsilon,
            "of_m": 1 / bias_correction(self.beta_1, step),
            "of_v": self.beta_2 / bias_correction(self.beta_2, step),
            "later": tf.cast(step > 1, step.dtype),
        }

    @property
    def has_kernel(self) -> bool:
        """The kernels divide by the betas."""
        return self.beta_1 > 0 and self.beta_2 > 0 and self.beta_3 > 0

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithm 1 of the paper, whose betas are one minus these."""
        m, v, n, previous = slots
        difference = scalars["later"] * (grad - previous)
        m = mix(m, grad, self.beta_1)
        v = mix(v, difference, self.beta_2)
        n = mix(n, tf.square(grad + self.beta_2 * difference), self.beta_3)
        ahead = scalars["of_m"] * m + scalars["of_v"] * v
        param = param - scalars["rate"] * ahead / (tf.sqrt(n) + scalars["epsilon"])
        return self._decayed(param, scalars), (m, v, n, grad)

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        """The same by TensorFlow's kernels."""
        m, v, n, previous = slots
        difference = scalars["later"] * (grad - _kernels.read(previous, grad.dtype))
        _kernels.assign(previous, grad)
        _kernels.follow(m, grad, self.beta_1)
        _kernels.follow(v, difference, self.beta_2)
        _kernels.follow(n, tf.square(grad + self.beta_2 * difference), self.beta_3)
        ahead = scalars["of_m"] * _kernels.read(m, grad.dtype) + scalars["of_v"] * _kernels.read(
            v, grad.dtype
        )
        _kernels.descend_by_root(param, scalars["rate"], ahead, n, scalars["epsilon"])
        if scalars["weight_decay"]:
            _kernels.assign(param, self._decayed(_kernels.read(param, grad.dtype), scalars))

    def _decayed(self, param: tf.Tensor, scalars: Scalars) -> tf.Tensor:
        decay = scalars["weight_decay"]
        return param / (1 + scalars["learning_rate"] * decay) if decay else param
