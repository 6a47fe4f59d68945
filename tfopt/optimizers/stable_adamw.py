"""StableAdamW: AdamW with Adafactor's update clipping in place of gradient clipping. arXiv:2304.13013."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments
from tfopt.optimizers._arithmetic import bias_correction, mix, with_decay
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class StableAdamW(RuleOptimizer):
    """AdamW that slows down a variable whose gradient is much larger than its second moment predicts.

    For large models with loss spikes, in place of gradient clipping and with a low beta_2. At AdamW's
    learning rates.

        m, v with beta_t = beta * (1 - beta**(t-1)) / (1 - beta**t)      (no bias correction needed)
        rate = learning_rate / max(1, sqrt(mean(g**2 / max(v, epsilon**2))))
        w = w - rate * weight_decay * w - rate * m / (sqrt(v) + epsilon)

    Memory: 2 slots. Cost: elementwise and one mean per variable.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        beta_1: Float in [0, 1). Share of the first moment that stays.
        beta_2: Float in [0, 1). Share of the second moment that stays.
        epsilon: Float >= 0. Keeps the division finite.
        **base_options: `weight_decay` (scaled as above), `clipnorm`, `global_clipnorm`, `use_ema`,
            ...: see `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.StableAdamW(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.9, 2.1], dtype=float32)

    References:
        Wortsman et al., "Stable and low-precision training for large-scale vision-language models",
        NeurIPS 2023. arXiv:2304.13013.
    """

    slots = (Slot("momentum"), Slot("velocity"))
    decay_in_rule = True

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        epsilon: float = 1e-8,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.beta_1 = _arguments.fraction("beta_1", beta_1)
        self.beta_2 = _arguments.fraction("beta_2", beta_2)
        self.epsilon = _arguments.positive("epsilon", epsilon)

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """Betas with the bias correction inside."""
        beta_1, beta_2 = (
            beta * bias_correction(beta, step - 1) / bias_correction(beta, step)
            for beta in (self.beta_1, self.beta_2)
        )
        return {"learning_rate": learning_rate, "beta_1": beta_1, "beta_2": beta_2}

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithm 2 of the paper."""
        m = mix(slots[0], grad, scalars["beta_1"])
        v = mix(slots[1], tf.square(grad), scalars["beta_2"])
        surprise = tf.sqrt(tf.reduce_mean(tf.square(grad) / tf.maximum(v, self.epsilon**2)))
        rate = scalars["learning_rate"] / tf.maximum(surprise, 1)
        direction = with_decay(m / (tf.sqrt(v) + self.epsilon), param, scalars["weight_decay"])
        return param - rate * direction, (m, v)
