"""LARS: momentum SGD with a step per layer relative to the size of its weights. arXiv:1708.03888."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments, _kernels
from tfopt.optimizers._arithmetic import layer_norm, ratio_or_one, with_decay
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class LARS(RuleOptimizer):
    """Momentum SGD in which every layer steps by a fixed share of the norm of its weights.

    For convolutional networks with batches of thousands, with warm-up and polynomial decay. Norms and biases
    get plain momentum SGD. Each expert of a mixture counts as a layer.

        trust = trust_coefficient * norm(w) / (norm(g) + weight_decay * norm(w))    (1 if a norm is 0)
        m = momentum * m + learning_rate * trust * (g + weight_decay * w)
        w = w - m

    Memory: 1 slot. Cost: elementwise and two norms per variable.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule. Much larger than for SGD: the step of
            a layer is `learning_rate * trust_coefficient * norm(w)`.
        momentum: Float in [0, 1).
        trust_coefficient: Float > 0; eta in the paper.
        **base_options: `weight_decay` (inside the gradient, as above), `clipnorm`, `use_ema`, ...:
            see `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.LARS(1.0)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.7, 7. ], dtype=float32)

    Differs from: Optax, which divides by norm(g + weight_decay * w), and implementations that adapt
    norms and biases too.

    References:
        You, Gitman, Ginsburg, "Large Batch Training of Convolutional Networks", 2017.
        arXiv:1708.03888.
    """

    slots = (Slot("momentum"),)
    decay_in_rule = True
    has_kernel = True
    uses_geometry = True

    def __init__(
        self,
        learning_rate: Any = 1.0,
        momentum: float = 0.9,
        trust_coefficient: float = 0.001,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.momentum = _arguments.fraction("momentum", momentum)
        self.trust_coefficient = _arguments.positive("trust_coefficient", trust_coefficient)

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithm 1 of the paper."""
        m = self.momentum * slots[0] + self._step(param, grad, scalars)
        return param - m, (m,)

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        """The same by TensorFlow's kernel of momentum."""
        value = _kernels.read(param, grad.dtype)
        step = self._step(value, grad, scalars)
        _kernels.momentum(param, slots[0], tf.ones([], grad.dtype), step, self.momentum)

    def _step(self, param: tf.Tensor, grad: tf.Tensor, scalars: Scalars) -> tf.Tensor:
        decay = scalars["weight_decay"]
        geometry = scalars["geometry"]
        if geometry.is_vector:
            trust = tf.ones([], grad.dtype)
        else:
            size, slope = (layer_norm(x, geometry.layer_axes) for x in (param, grad))
            trust = ratio_or_one(self.trust_coefficient * size, slope + decay * size)
        return scalars["learning_rate"] * trust * with_decay(grad, param, decay)
