"""SGD: gradient descent, with momentum if wanted. Polyak 1964; Sutskever et al., ICML 2013."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class SGD(RuleOptimizer):
    """Gradient descent with momentum: Keras's SGD by one fused kernel per variable.

    The reference for convolutional networks trained long; needs a tuned learning rate and schedule.
    Where tuning is not possible, start with `AdamW`.

        velocity = momentum * velocity - learning_rate * g
        w = w + velocity                                        (nesterov=False)
        w = w + momentum * velocity - learning_rate * g         (nesterov=True)

    Memory: 1 slot with momentum, none without. Cost: elementwise, one kernel. Without momentum, only
    the touched rows of an embedding are read and written.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        momentum: Float in [0, 1]. 0 is plain gradient descent.
        nesterov: Whether to use Nesterov's momentum.
        **base_options: `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`, ...: see `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.SGD(0.1, momentum=0.9)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([1.0, 1.0])], [weight])
        >>> weight.numpy()
        array([0.9, 1.9], dtype=float32)

    References:
        Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep
        learning", ICML 2013.
    """

    has_kernel = True

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.momentum = _arguments.share("momentum", momentum)
        self.nesterov = bool(nesterov)

    @property
    def slots(self) -> Sequence[Slot]:
        """The velocity, called momentum in Keras; none without momentum."""
        return (Slot("momentum"),) if self.momentum else ()

    @property
    def adds_rows(self) -> bool:
        """Without momentum the steps of several mentions of a row add up."""
        return not self.momentum

    @property
    def updates_rows(self) -> bool:
        """Without momentum a row that has no gradient does not move."""
        return not self.momentum

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        step = scalars["learning_rate"] * grad
        if not self.momentum:
            return param - step, ()
        velocity = self.momentum * slots[0] - step
        return param + (self.momentum * velocity - step if self.nesterov else velocity), (velocity,)

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        rate = scalars["learning_rate"]
        if isinstance(grad, tf.IndexedSlices):
            step = rate * grad.values
            tf.raw_ops.ResourceScatterSub(resource=param, indices=grad.indices, updates=step)
            return
        if not self.momentum:
            tf.raw_ops.ResourceApplyGradientDescent(var=param, alpha=rate, delta=grad)
            return
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=param,
            accum=slots[0],
            lr=rate,
            grad=grad,
            momentum=tf.constant(self.momentum, grad.dtype),
            use_nesterov=self.nesterov,
        )
