"""Schedule-Free AdamW: averaging in place of a decaying learning rate. arXiv:2405.15682."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments
from tfopt.optimizers._arithmetic import bias_correction, mix
from tfopt.optimizers._rule import Scalars, Slot, Tensors
from tfopt.optimizers._schedule_free import ScheduleFree


@keras.saving.register_keras_serializable(package="tfopt")
class ScheduleFreeAdamW(ScheduleFree):
    """AdamW without a learning rate schedule: the weights are an average that ends where a schedule would.

    Needs no schedule: at any time the average is as good as a run that had decayed to there. Warm-up
    helps. Evaluate, save and deploy at the average: `WeightAveraging(mode="optimizer")` with
    `averaged(model)`, which also re-estimates batch-norm statistics there.

        y = (1 - beta_1) * z + beta_1 * x                          (the variables; g is taken at y)
        z = z - rate * (g / (sqrt(v_hat) + epsilon) + weight_decay * y);  v as in Adam
        x = (1 - c) * x + c * z;  c = rate_max**2 / sum of rate_max**2

    Memory: 2 slots. Cost: elementwise.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule. Higher than for AdamW: 1 to 10 times.
        beta_1: Float in (0, 1). Where y lies between z and x.
        beta_2: Float in [0, 1). Share of the second moment that stays.
        epsilon: Float >= 0. Keeps the division finite.
        warmup_steps: Int >= 0, in steps. The rate rises linearly.
        **base_options: `weight_decay` (taken at y), `clipnorm`, `global_clipnorm`, ...: see
            `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.ScheduleFreeAdamW(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.9, 2.1], dtype=float32)

    Differs from: `keras.optimizers.ScheduleFreeAdamW`, which on TensorFlow resets z in every step of
    `fit`, reads it after its update and cannot be evaluated at the average.

    References:
        Defazio et al., "The Road Less Scheduled", NeurIPS 2024. arXiv:2405.15682.
    """

    slots = (Slot("z", tf.identity), Slot("velocity"))

    def __init__(
        self,
        learning_rate: Any = 0.0025,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        warmup_steps: int = 0,
        **base_options: Any,
    ):
        super().__init__(learning_rate, ("beta_1", beta_1), warmup_steps, **base_options)
        self.beta_1 = self._interpolation
        self.beta_2 = _arguments.fraction("beta_2", beta_2)
        self.epsilon = _arguments.not_negative("epsilon", epsilon)

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """Rate and bias correction."""
        return super().scalars(learning_rate, step) | {"correction": bias_correction(self.beta_2, step)}

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithm 1 of the paper."""
        z, v = slots
        v = mix(v, tf.square(grad), self.beta_2)
        direction = grad / (tf.sqrt(v / scalars["correction"]) + self.epsilon)
        y, z = self.step(param, z, direction, scalars)
        return y, (z, v)
