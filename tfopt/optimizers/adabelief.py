"""AdaBelief: step sizes from how far the gradient is from its prediction. arXiv:2010.07468."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments, _kernels
from tfopt.optimizers._arithmetic import bias_correction, mix
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class AdaBelief(RuleOptimizer):
    """Adam with the spread of the gradient around its running mean in place of its mean square.

    Large steps where the gradient is as expected. Used for vision models trained from scratch, at
    Adam's learning rates.

        m = beta_1 * m + (1 - beta_1) * g
        s = beta_2 * s + (1 - beta_2) * (g - m)**2 + epsilon
        w = w - learning_rate * m_hat / (sqrt(s_hat) + epsilon)

    Memory: 2 slots. Cost: elementwise.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        beta_1: Float in [0, 1). Share of the first moment that stays.
        beta_2: Float in [0, 1). Share of the spread that stays.
        epsilon: Float >= 0, added to the spread and to its root; the paper's code has 1e-16.
        **base_options: `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`, ...: see
            `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.AdaBelief(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.889, 2.111], dtype=float32)

    Differs from: TensorFlow Addons and pytorch_optimizer's default, which add RAdam's rectification.

    References:
        Zhuang et al., "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed
        Gradients", NeurIPS 2020. arXiv:2010.07468.
    """

    slots = (Slot("momentum"), Slot("spread"))
    several_passes = True

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-16,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.beta_1 = _arguments.fraction("beta_1", beta_1)
        self.beta_2 = _arguments.fraction("beta_2", beta_2)
        self.epsilon = _arguments.not_negative("epsilon", epsilon)

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """Both bias corrections."""
        return {
            "rate": learning_rate / bias_correction(self.beta_1, step),
            "correction_2": bias_correction(self.beta_2, step),
        }

    @property
    def has_kernel(self) -> bool:
        """The kernels divide by the betas."""
        return self.beta_1 > 0 and self.beta_2 > 0

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithm 2 of the paper."""
        m = mix(slots[0], grad, self.beta_1)
        s = mix(slots[1], self._surprise(grad, m), self.beta_2)
        return param - scalars["rate"] * m / (tf.sqrt(s / scalars["correction_2"]) + self.epsilon), (m, s)

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        """The same by TensorFlow's kernels."""
        m, s = slots
        _kernels.follow(m, grad, self.beta_1)
        mean = _kernels.read(m, grad.dtype)
        _kernels.follow(s, self._surprise(grad, mean), self.beta_2)
        root = tf.sqrt(scalars["correction_2"])
        _kernels.descend_by_root(param, scalars["rate"] * root, mean, s, root * self.epsilon)

    def _surprise(self, grad: tf.Tensor, mean: tf.Tensor) -> tf.Tensor:
        """With the epsilon that the paper adds to s, so that XLA updates s in place."""
        return tf.math.squared_difference(grad, mean) + self.epsilon / (1 - self.beta_2)
