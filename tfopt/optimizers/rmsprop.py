"""RMSprop: gradients divided by the root of their running mean square. Tieleman and Hinton, 2012."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments, _kernels
from tfopt.optimizers._arithmetic import mix
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class RMSprop(RuleOptimizer):
    """Gradients divided by the root of their running mean square: Keras's RMSprop, fused or compiled.

    The classic for recurrent and reinforcement learning and for MobileNet's original recipe (momentum
    0.9). For new work `AdamW` is usually the better start.

        velocity = rho * velocity + (1 - rho) * g**2
        average = rho * average + (1 - rho) * g                       (centered only)
        step = learning_rate * g / sqrt(velocity - average**2 + epsilon)
        momentum_slot = momentum * momentum_slot + step; w = w - momentum_slot

    Memory: 1 slot, one more each with `momentum` and `centered`. Cost: elementwise; one kernel with
    momentum.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        rho: Float in [0, 1). Share of the mean square that stays.
        momentum: Float in [0, 1). 0 is none.
        epsilon: Float >= 0. Keeps the division finite.
        centered: Whether to subtract the squared mean gradient (an estimate of the variance).
        **base_options: `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`, ...: see
            `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.RMSprop(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.684, 2.316], dtype=float32)

    References:
        Tieleman, Hinton, "Lecture 6.5 - rmsprop", Coursera 2012; centered: Graves, arXiv:1308.0850.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.rho = _arguments.fraction("rho", rho)
        self.momentum = _arguments.fraction("momentum", momentum)
        self.epsilon = _arguments.not_negative("epsilon", epsilon)
        self.centered = bool(centered)

    @property
    def slots(self) -> Sequence[Slot]:
        """Mean square, and as Keras has them, momentum and mean gradient after those of all variables."""
        momentum = (Slot("momentum", apart=True),) if self.momentum else ()
        average = (Slot("average_gradient", apart=True),) if self.centered else ()
        return (Slot("velocity"), *momentum, *average)

    @property
    def has_kernel(self) -> bool:
        """The kernels always keep a momentum; without it, plain RMSprop has a form of its own."""
        return self.momentum > 0 or (self.rho > 0 and not self.centered)

    @property
    def several_passes(self) -> bool:
        """The form without momentum, which has no kernel of its own."""
        return not self.momentum

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """In the order of the formula above."""
        velocity = mix(slots[0], tf.square(grad), self.rho)
        average = mix(slots[-1], grad, self.rho) if self.centered else tf.zeros_like(grad)
        step = scalars["learning_rate"] * grad * tf.math.rsqrt(velocity - tf.square(average) + self.epsilon)
        momentum = self.momentum * slots[1] + step if self.momentum else step
        kept = (momentum,) * bool(self.momentum) + (average,) * self.centered
        return param - momentum, (velocity, *kept)

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        """The same by TensorFlow's kernels."""
        if not self.momentum:
            _kernels.follow(slots[0], tf.square(grad), self.rho)
            direction = grad * tf.math.rsqrt(_kernels.read(slots[0], grad.dtype) + self.epsilon)
            _kernels.descend(param, scalars["learning_rate"], direction)
            return
        options = {"lr": scalars["learning_rate"], "grad": grad}
        for name, value in (("rho", self.rho), ("momentum", self.momentum), ("epsilon", self.epsilon)):
            options[name] = tf.constant(value, grad.dtype)
        if self.centered:
            velocity, momentum, average = slots
            tf.raw_ops.ResourceApplyCenteredRMSProp(
                var=param, mg=average, ms=velocity, mom=momentum, **options
            )
        else:
            tf.raw_ops.ResourceApplyRMSProp(var=param, ms=slots[0], mom=slots[1], **options)
