"""Nadam: Adam with Nesterov's momentum and Dozat's momentum schedule. Dozat, ICLR workshop 2016."""

import math
from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments, _kernels
from tfopt.optimizers._arithmetic import bias_correction, mix
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class Nadam(RuleOptimizer):
    """Adam with Nesterov's momentum and a slowly rising momentum schedule.

    Where Adam works and the loss is smooth, often a little faster. By two fused kernels per variable.

        mu_t = beta_1 * (1 - 0.5 * 0.96**(t * momentum_decay))
        m, v as in Adam;  v_hat = v / (1 - beta_2**t)
        m_hat = mu_t+1 * m / (1 - mu_1 ... mu_t+1) + (1 - mu_t) * g / (1 - mu_1 ... mu_t)
        w = w - learning_rate * m_hat / (sqrt(v_hat) + epsilon)

    Memory: 2 slots. Cost: elementwise, two kernels.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        beta_1: Float in [0, 1). Largest momentum.
        beta_2: Float in [0, 1). Share of the second moment that stays.
        epsilon: Float >= 0. Keeps the division finite.
        momentum_decay: Float >= 0. Speed of the momentum schedule; 0 keeps half of `beta_1`.
        **base_options: `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`, ...: see
            `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.Nadam(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.894, 2.106], dtype=float32)

    Differs from: Keras's Nadam, whose schedule is 0.96**t (`momentum_decay=1` gives it). The default
    is the paper's and PyTorch's. The saved state is Keras's.

    References:
        Dozat, "Incorporating Nesterov Momentum into Adam", ICLR 2016 workshop.
    """

    slots = (Slot("momentum"), Slot("velocity"))
    state = {"product": 1.0}
    has_kernel = True

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        momentum_decay: float = 0.004,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.beta_1 = _arguments.fraction("beta_1", beta_1)
        self.beta_2 = _arguments.fraction("beta_2", beta_2)
        self.epsilon = _arguments.not_negative("epsilon", epsilon)
        self.momentum_decay = _arguments.not_negative("momentum_decay", momentum_decay)

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """Momentum of this step and of the next, and the bias correction of v."""
        return {
            "learning_rate": learning_rate,
            "mu": self._mu(step),
            "next_mu": self._mu(step + 1),
            "correction": tf.sqrt(bias_correction(self.beta_2, step)),
        }

    def reduce(self, params: list, grads: list, slots: list, scalars: Scalars, state: Scalars) -> Any:
        """The product of all momenta so far."""
        product = state["product"] * scalars["mu"]
        return {"product": product}, {"product": product}

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Equation 12 of the paper with its schedule."""
        m = mix(slots[0], grad, self.beta_1)
        v = mix(slots[1], tf.square(grad), self.beta_2)
        of_m, of_grad = self._shares(scalars)
        step = (of_m * m + of_grad * grad) / (tf.sqrt(v) / scalars["correction"] + self.epsilon)
        return param - scalars["learning_rate"] * step, (m, v)

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        """Adam's kernel for the share of m, Adagrad's without its accumulation for that of g."""
        of_m, of_grad = self._shares(scalars)
        rate = scalars["learning_rate"] * scalars["correction"]
        epsilon = scalars["correction"] * self.epsilon
        _kernels.adam(param, slots, grad, rate * of_m, (self.beta_1, self.beta_2), epsilon)
        _kernels.descend_by_root(param, rate * of_grad, grad, slots[1], epsilon)

    def _mu(self, step: tf.Tensor) -> tf.Tensor:
        return self.beta_1 * (1 - 0.5 * tf.exp(step * (self.momentum_decay * math.log(0.96))))

    def _shares(self, scalars: Scalars) -> tuple[tf.Tensor, tf.Tensor]:
        product = scalars["product"]
        of_m = scalars["next_mu"] / (1 - product * scalars["next_mu"])
        return of_m, (1 - scalars["mu"]) / (1 - product)
