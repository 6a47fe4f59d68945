"""NovoGrad: momentum on gradients normalized per layer. arXiv:1905.11286."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments, _kernels
from tfopt.optimizers._arithmetic import mix, with_decay
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class NovoGrad(RuleOptimizer):
    """Momentum SGD on gradients divided by the running norm of their layer.

    For speech and vision networks with large batches, without warm-up; half the memory of Adam.

        v = beta_2 * v + (1 - beta_2) * norm(g)**2              (norm(g)**2 at the first step)
        m = beta_1 * m + g / (sqrt(v) + epsilon) + weight_decay * w
        w = w - learning_rate * m

    Memory: 1 slot and a scalar per variable. Cost: elementwise and one norm per variable.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        beta_1: Float in [0, 1). Share of the momentum that stays.
        beta_2: Float in [0, 1). Share of the squared norm that stays.
        epsilon: Float >= 0. Keeps the division finite.
        **base_options: `weight_decay` (inside the momentum), `clipnorm`, `global_clipnorm`,
            `use_ema`, ...: see `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.NovoGrad(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.994, 2.1  ], dtype=float32)

    Differs from: Optax (beta_2=0.25) and TensorFlow Addons (0.9 and 0.999), whose defaults are not
    the paper's.

    References:
        Ginsburg et al., "Stochastic Gradient Methods with Layer-wise Adaptive Moments for Training
        of Deep Networks", 2019. arXiv:1905.11286.
    """

    slots = (Slot("momentum"), Slot("square_norm", shape=lambda shape: ()))
    decay_in_rule = True
    has_kernel = True

    def __init__(
        self,
        learning_rate: Any = 0.01,
        beta_1: float = 0.95,
        beta_2: float = 0.98,
        epsilon: float = 1e-8,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.beta_1 = _arguments.fraction("beta_1", beta_1)
        self.beta_2 = _arguments.fraction("beta_2", beta_2)
        self.epsilon = _arguments.not_negative("epsilon", epsilon)

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """Whether the second moment starts."""
        return {"learning_rate": learning_rate, "first": step < 2}

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithm 1 of the paper."""
        m, v = slots
        square = tf.reduce_sum(tf.square(grad))
        v = tf.where(scalars["first"], square, mix(v, square, self.beta_2))
        update = with_decay(grad / (tf.sqrt(v) + self.epsilon), param, scalars["weight_decay"])
        m = self.beta_1 * m + update
        return param - scalars["learning_rate"] * m, (m, v)

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        """The same by TensorFlow's kernels; that of momentum does the last two lines."""
        m, v = slots
        square = 2 * tf.nn.l2_loss(grad)
        square = tf.where(scalars["first"], square, mix(_kernels.read(v, grad.dtype), square, self.beta_2))
        _kernels.assign(v, square)
        update = grad / (tf.sqrt(square) + self.epsilon)
        update = with_decay(update, _kernels.read(param, grad.dtype), scalars["weight_decay"])
        _kernels.momentum(param, m, scalars["learning_rate"], update, self.beta_1)
