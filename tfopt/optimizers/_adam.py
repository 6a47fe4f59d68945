"""The update of Adam, shared by `Adam` and `AdamW`. Kingma and Ba, arXiv:1412.6980."""

import abc
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfopt.optimizers import _arguments, _kernels
from tfopt.optimizers._arithmetic import bias_correction, mix
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


class AdamRule(RuleOptimizer, abc.ABC):
    """Adam with Keras's epsilon and state, by fused kernels.

    The bias corrections are folded into the learning rate, as in section 2 of the paper, so that the
    kernel gets powers of 0 and the rounding of 1 - beta**t is ours.
    """

    def __init__(
        self,
        learning_rate: Any,
        beta_1: float,
        beta_2: float,
        epsilon: float,
        amsgrad: bool,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.beta_1 = _arguments.fraction("beta_1", beta_1)
        self.beta_2 = _arguments.fraction("beta_2", beta_2)
        self.epsilon = _arguments.not_negative("epsilon", epsilon)
        self.amsgrad = bool(amsgrad)

    @property
    def slots(self) -> Sequence[Slot]:
        """First and second moment; with amsgrad also the largest second moment so far."""
        largest = (Slot("velocity_hat", apart=True),) if self.amsgrad else ()
        return (Slot("momentum"), Slot("velocity"), *largest)

    @property
    def has_kernel(self) -> bool:
        """The kernel of amsgrad has no XLA version."""
        return not self.amsgrad

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """The learning rate with both bias corrections."""
        correction_1, correction_2 = bias_correction(self.beta_1, step), bias_correction(self.beta_2, step)
        alpha = learning_rate * tf.sqrt(correction_2) / correction_1
        return {"alpha": alpha, "epsilon": tf.constant(self.epsilon, step.dtype)}

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithm 1 in the order of section 2: w -= alpha * m / (sqrt(v) + epsilon)."""
        m = mix(slots[0], grad, self.beta_1)
        v = mix(slots[1], tf.square(grad), self.beta_2)
        largest = tf.maximum(slots[2], v) if self.amsgrad else v
        param = param - scalars["alpha"] * m / (tf.sqrt(largest) + self.epsilon)
        return param, (m, v, largest) if self.amsgrad else (m, v)

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        """The same by TensorFlow's kernels."""
        betas = (self.beta_1, self.beta_2)
        _kernels.adam(param, slots, grad, scalars["alpha"], betas, scalars["epsilon"])
