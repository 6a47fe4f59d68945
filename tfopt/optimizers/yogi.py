"""Yogi: a second moment that changes additively, not geometrically. Zaheer et al., NeurIPS 2018."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments, _kernels
from tfopt.optimizers._arithmetic import bias_correction, mix
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class Yogi(RuleOptimizer):
    """Adam whose second moment moves by a bounded amount, so that it cannot forget large gradients fast.

    For sparse or bursty gradients, where Adam's step size jumps up after a quiet period. Wants a
    larger epsilon and learning rate than Adam.

        m = beta_1 * m + (1 - beta_1) * g
        v = v - (1 - beta_2) * sign(v - g**2) * g**2
        w = w - learning_rate * m_hat / (sqrt(v_hat) + epsilon)

    Memory: 2 slots. Cost: elementwise.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        beta_1: Float in [0, 1). Share of the first moment that stays.
        beta_2: Float in [0, 1). 1 - beta_2 is the relative size of a change.
        epsilon: Float >= 0. Keeps the division finite.
        initial_accumulator_value: Float >= 0. First value of both moments.
        **base_options: `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`, ...: see
            `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.Yogi(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.901, 2.1  ], dtype=float32)

    Differs from: the paper's algorithm, which has no bias correction; the authors' code, Optax and
    TensorFlow Addons correct as Adam does, and so does this.

    References:
        Zaheer, Reddi, Sachan, Kale, Kumar, "Adaptive Methods for Nonconvex Optimization", NeurIPS
        2018.
    """

    several_passes = True

    def __init__(
        self,
        learning_rate: Any = 0.01,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-3,
        initial_accumulator_value: float = 1e-6,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.beta_1 = _arguments.fraction("beta_1", beta_1)
        self.beta_2 = _arguments.fraction("beta_2", beta_2)
        self.epsilon = _arguments.not_negative("epsilon", epsilon)
        name = "initial_accumulator_value"
        self.initial_accumulator_value = _arguments.not_negative(name, initial_accumulator_value)

    @property
    def slots(self) -> Sequence[Slot]:
        """Both moments."""
        first = self.initial_accumulator_value
        return (Slot("momentum", first), Slot("velocity", first))

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """Both bias corrections."""
        return {
            "rate": learning_rate / bias_correction(self.beta_1, step),
            "correction_2": bias_correction(self.beta_2, step),
        }

    @property
    def has_kernel(self) -> bool:
        """The kernels divide by beta_1."""
        return self.beta_1 > 0

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithm 2 of the paper."""
        m = mix(slots[0], grad, self.beta_1)
        square = tf.square(grad)
        v = slots[1] - (1 - self.beta_2) * tf.sign(slots[1] - square) * square
        return param - scalars["rate"] * m / (tf.sqrt(v / scalars["correction_2"]) + self.epsilon), (m, v)

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        """The same by TensorFlow's kernels."""
        m, v = slots
        square = tf.square(grad)
        change = tf.sign(_kernels.read(v, grad.dtype) - square) * square
        _kernels.follow(m, grad, self.beta_1)
        _kernels.descend(v, tf.constant(1 - self.beta_2, grad.dtype), change)
        root = tf.sqrt(scalars["correction_2"])
        mean = _kernels.read(m, grad.dtype)
        _kernels.descend_by_root(param, scalars["rate"] * root, mean, v, root * self.epsilon)
