"""RAdam: Adam that starts as momentum until its second moment can be trusted. arXiv:1908.03265."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments, _kernels
from tfopt.optimizers._arithmetic import bias_correction, mix
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class RAdam(RuleOptimizer):
    """Adam that starts as plain momentum and turns adaptive once the second moment is estimated well.

    Replaces a hand-tuned warm-up of the learning rate. After some hundred steps it is Adam.

        m, v, m_hat, v_hat as in Adam
        rho = rho_inf - 2 * t * beta_2**t / (1 - beta_2**t);  rho_inf = 2 / (1 - beta_2) - 1
        r = sqrt((rho-4)(rho-2) rho_inf / ((rho_inf-4)(rho_inf-2) rho))
        w = w - learning_rate * r * m_hat / (sqrt(v_hat) + epsilon)     if rho > 5
        w = w - learning_rate * m_hat                                   else

    Memory: 2 slots. Cost: elementwise.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        beta_1: Float in [0, 1). Share of the first moment that stays.
        beta_2: Float in [0, 1). Share of the second moment that stays.
        epsilon: Float >= 0. Keeps the division finite.
        **base_options: `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`, ...: see
            `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.RAdam(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.97, 2.5 ], dtype=float32)

    Differs from: pytorch_optimizer, which by default makes no step until rho > 5; TensorFlow Addons
    switched at rho >= 5.

    References:
        Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", ICLR 2020.
        arXiv:1908.03265.
    """

    slots = (Slot("momentum"), Slot("velocity"))
    several_passes = True

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.beta_1 = _arguments.fraction("beta_1", beta_1)
        self.beta_2 = _arguments.fraction("beta_2", beta_2)
        self.epsilon = _arguments.not_negative("epsilon", epsilon)

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """Length of the moving average and the rectification from it."""
        correction_2 = bias_correction(self.beta_2, step)
        largest = 2 / (1 - self.beta_2) - 1
        rho = largest - 2 * step * (1 - correction_2) / correction_2
        adaptive = rho > 5
        safe = tf.where(adaptive, rho, 6.0)
        rectifier = (safe - 4) * (safe - 2) * largest / ((largest - 4) * (largest - 2) * safe)
        return {
            "rate": learning_rate / bias_correction(self.beta_1, step),
            "rectifier": tf.sqrt(rectifier),
            "correction_2": correction_2,
            "adaptive": adaptive,
        }

    @property
    def has_kernel(self) -> bool:
        """Without epsilon the rate of 0 would meet a division by 0."""
        return self.epsilon > 0

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithm 2 of the paper."""
        m = mix(slots[0], grad, self.beta_1)
        v = mix(slots[1], tf.square(grad), self.beta_2)
        adaptive = scalars["rectifier"] / (tf.sqrt(v / scalars["correction_2"]) + self.epsilon)
        factor = tf.where(scalars["adaptive"], adaptive, tf.ones_like(adaptive))
        return param - scalars["rate"] * m * factor, (m, v)

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        """Adam's kernel with a rate of 0 in the first steps, and the steps of plain momentum."""
        root, adaptive = tf.sqrt(scalars["correction_2"]), scalars["adaptive"]
        zero = tf.zeros([], grad.dtype)
        rate = tf.where(adaptive, scalars["rate"] * scalars["rectifier"] * root, zero)
        _kernels.adam(param, slots, grad, rate, (self.beta_1, self.beta_2), root * self.epsilon)
        plain = tf.where(adaptive, zero, scalars["rate"])
        _kernels.descend(param, plain, _kernels.read(slots[0], grad.dtype))
