"""MARS: AdamW on gradients whose variance is reduced by those of the step before. arXiv:2411.10438."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments, _kernels
from tfopt.optimizers._arithmetic import bias_correction, layer_norm, mix
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class MARS(RuleOptimizer):
    """AdamW on a gradient that is corrected by its difference to the gradient of the step before.

    For large models trained from scratch, where the noise of the gradients is what limits the rate. This is
    the paper's MARS-AdamW with last gradients (its "MARS-approx"), which takes no second gradient per step.

        c = g + gamma * beta_1 / (1 - beta_1) * (g - previous g)       (the difference is 0 at the first step)
        c = c / max(1, norm(c))                                        (for each layer)
        m = beta_1 * m + (1 - beta_1) * c
        v = beta_2 * v + (1 - beta_2) * c**2
        w = w - learning_rate * (m_hat / (sqrt(v_hat) + epsilon) + weight_decay * w)

    Memory: 3 slots. Cost: elementwise and a norm per variable.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        beta_1: Float in [0, 1). Share of the first moment that stays.
        beta_2: Float in [0, 1). Share of the second moment that stays.
        epsilon: Float >= 0. Keeps the division finite.
        gamma: Float in [0, 1]. Strength of the correction; 0 is AdamW on clipped gradients.
        **base_options: `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`, ...: see
            `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.MARS(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.9, 2.1], dtype=float32)

    Differs from: The authors' code, which starts from a previous gradient of 0 where the paper starts from
    no difference, and gives AdamW of its own to all but matrices (`ParameterGroups` does that). As in that
    code, each layer is clipped alone.

    References:
        Yuan, Liu, Wu, Zhou, Gu, "MARS: Unleashing the Power of Variance Reduction for Training Large
        Models", ICML 2025. arXiv:2411.10438.
    """

    slots = (Slot("momentum"), Slot("velocity"), Slot("previous", is_gradient=True))
    several_passes = True
    uses_geometry = True

    def __init__(
        self,
        learning_rate: Any = 0.003,
        beta_1: float = 0.95,
        beta_2: float = 0.99,
        epsilon: float = 1e-8,
        gamma: float = 0.025,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.beta_1 = _arguments.fraction("beta_1", beta_1)
        self.beta_2 = _arguments.fraction("beta_2", beta_2)
        self.epsilon = _arguments.not_negative("epsilon", epsilon)
        self.gamma = _arguments.share("gamma", gamma)

    @property
    def has_kernel(self) -> bool:
        """False if a beta is 0, by which the fused kernels divide."""
        return self.beta_1 > 0 and self.beta_2 > 0

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """The learning rate with both bias corrections, and the strength, 0 at the first step."""
        root = tf.sqrt(bias_correction(self.beta_2, step))
        strength = self.gamma * self.beta_1 / (1 - self.beta_1)
        return {
            "rate": learning_rate * root / bias_correction(self.beta_1, step),
            "epsilon": root * self.epsilon,
            "strength": strength * tf.cast(step > 1, step.dtype),
        }

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithm 2 of the paper with the last gradient in place of a second one."""
        corrected = self._corrected(grad, slots[2], scalars)
        m = mix(slots[0], corrected, self.beta_1)
        v = mix(slots[1], tf.square(corrected), self.beta_2)
        return param - scalars["rate"] * m / (tf.sqrt(v) + scalars["epsilon"]), (m, v, grad)

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        """Adam's kernel on the corrected gradient."""
        *moments, previous = slots
        corrected = self._corrected(grad, _kernels.read(previous, grad.dtype), scalars)
        _kernels.assign(previous, grad)
        betas = (self.beta_1, self.beta_2)
        _kernels.adam(param, tuple(moments), corrected, scalars["rate"], betas, scalars["epsilon"])

    def _corrected(self, grad: tf.Tensor, previous: tf.Tensor, scalars: Scalars) -> tf.Tensor:
        corrected = grad + scalars["strength"] * (grad - previous)
        return corrected / tf.maximum(layer_norm(corrected, scalars["geometry"].layer_axes), 1.0)
