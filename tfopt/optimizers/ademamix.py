"""AdEMAMix: Adam with a second, very slow momentum. arXiv:2409.03137."""

import math
from typing import Any

import keras
import tensorflow as tf

from tfopt import _checks
from tfopt.optimizers import _arguments, _kernels
from tfopt.optimizers._arithmetic import bias_correction, mix
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class AdEMAMix(RuleOptimizer):
    """Adam that adds a second momentum with a memory of ten thousand steps.

    For long runs (tens of thousands of steps) on large data, at AdamW's learning rates. In short runs
    the slow momentum has no time to fill.

        m1 = beta_1 * m1 + (1 - beta_1) * g;  v as in Adam
        m2 = beta_3(t) * m2 + (1 - beta_3(t)) * g
        w = w - learning_rate * (m1_hat + alpha(t) * m2) / (sqrt(v_hat) + epsilon)

    Memory: 3 slots. Cost: elementwise.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        beta_1: Float in [0, 1). Share of the first moment that stays.
        beta_2: Float in [0, 1). Share of the second moment that stays.
        epsilon: Float >= 0. Keeps the division finite.
        beta_3: Float in (beta_1, 1). Share of the slow momentum that stays, once warmed up.
        alpha: Float >= 0. Weight of the slow momentum, 4 to 10.
        warmup_steps: Int >= 0, in steps. `alpha` rises to its value linearly and `beta_3` linearly
            in its half-life; the paper takes the whole run. 0 is no warm-up.
        **base_options: `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`, ...: see
            `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.AdEMAMix(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.9, 2.1], dtype=float32)

    Differs from: Optax, which has no warm-up and whose `scale_by_ademamix` defaults to alpha=6.

    References:
        Pagliardini, Ablin, Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", ICLR 2025.
        arXiv:2409.03137.
    """

    slots = (Slot("fast"), Slot("slow"), Slot("velocity"))
    several_passes = True

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        beta_3: float = 0.9999,
        alpha: float = 5.0,
        warmup_steps: int = 0,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.beta_1 = _checks.check_number(
            "beta_1", beta_1, minimum=0, maximum=1, open_minimum=True, open_maximum=True
        )
        self.beta_2 = _arguments.fraction("beta_2", beta_2)
        self.epsilon = _arguments.not_negative("epsilon", epsilon)
        self.beta_3 = _checks.check_number(
            "beta_3", beta_3, minimum=self.beta_1, maximum=1, open_minimum=True, open_maximum=True
        )
        self.alpha = _arguments.not_negative("alpha", alpha)
        self.warmup_steps = _checks.check_integer("warmup_steps", warmup_steps, minimum=0)

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """Bias corrections, and where the warm-up of alpha and beta_3 has come to."""
        alpha, beta_3 = tf.constant(self.alpha, step.dtype), tf.constant(self.beta_3, step.dtype)
        if self.warmup_steps:
            share = tf.minimum(step / self.warmup_steps, 1)
            low, high = (math.log(0.5) / math.log(beta) - 1 for beta in (self.beta_1, self.beta_3))
            alpha, beta_3 = alpha * share, tf.exp(math.log(0.5) / ((1 - share) * low + share * high + 1))
        return {
            "learning_rate": learning_rate,
            "correction_1": bias_correction(self.beta_1, step),
            "correction_2": bias_correction(self.beta_2, step),
            "alpha": alpha,
            "beta_3": beta_3,
        }

    @property
    def has_kernel(self) -> bool:
        """The kernels divide by the betas."""
        return self.beta_2 > 0

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithm 1 of the paper; the shell makes the weight decay."""
        fast = mix(slots[0], grad, self.beta_1)
        slow = mix(slots[1], grad, scalars["beta_3"])
        v = mix(slots[2], tf.square(grad), self.beta_2)
        direction = fast / scalars["correction_1"] + scalars["alpha"] * slow
        denominator = tf.sqrt(v / scalars["correction_2"]) + self.epsilon
        return param - scalars["learning_rate"] * direction / denominator, (fast, slow, v)

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        """The same by TensorFlow's kernels."""
        fast, slow, v = slots
        _kernels.follow(fast, grad, self.beta_1)
        _kernels.follow(slow, grad, scalars["beta_3"])
        _kernels.follow(v, tf.square(grad), self.beta_2)
        means = [_kernels.read(slot, grad.dtype) for slot in (fast, slow)]
        direction = means[0] / scalars["correction_1"] + scalars["alpha"] * means[1]
        root = tf.sqrt(scalars["correction_2"])
        _kernels.descend_by_root(param, scalars["learning_rate"] * root, direction, v, root * self.epsilon)
