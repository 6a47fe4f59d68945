"""Adagrad: step sizes that shrink with the sum of squared gradients. Duchi et al., JMLR 2011."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class Adagrad(RuleOptimizer):
    """Step sizes that shrink with the sum of squared gradients: Keras's Adagrad, by rows for embeddings.

    For sparse features and embeddings, of which it reads and writes only the touched rows. On dense
    networks the steps become too small in the long run.

        accumulator = accumulator + g**2
        w = w - learning_rate * g / sqrt(accumulator + epsilon)

    Memory: 1 slot. Cost: elementwise, one kernel.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        initial_accumulator_value: Float >= 0. First value of the accumulators.
        epsilon: Float >= 0. Keeps the division finite.
        **base_options: `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`, ...: see
            `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.Adagrad(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.931, 2.1  ], dtype=float32)

    References:
        Duchi, Hazan, Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
        Optimization", JMLR 12, 2011.
    """

    updates_rows = True

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        name = "initial_accumulator_value"
        self.initial_accumulator_value = _arguments.not_negative(name, initial_accumulator_value)
        self.epsilon = _arguments.not_negative("epsilon", epsilon)

    @property
    def slots(self) -> Sequence[Slot]:
        """Sum of squares."""
        return (Slot("accumulator", self.initial_accumulator_value),)

    @property
    def has_kernel(self) -> bool:
        """The kernel adds its epsilon after the root; below this bound float32 cannot tell."""
        return self.epsilon <= 1e-6 * self.initial_accumulator_value

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """In the order of the formula above."""
        accumulator = slots[0] + tf.square(grad)
        return param - scalars["learning_rate"] * grad * tf.math.rsqrt(accumulator + self.epsilon), (
            accumulator,
        )

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        """With the epsilon that gives the same root at the initial value."""
        first = self.initial_accumulator_value
        epsilon = math.sqrt(first + self.epsilon) - math.sqrt(first)
        tf.raw_ops.ResourceApplyAdagradV2(
            var=param,
            accum=slots[0],
            lr=scalars["learning_rate"],
            epsilon=tf.constant(epsilon, grad.dtype),
            grad=grad,
        )
