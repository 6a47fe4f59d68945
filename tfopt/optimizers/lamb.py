"""LAMB: Adam with a step per layer relative to the size of its weights. arXiv:1904.00962."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments, _kernels
from tfopt.optimizers._arithmetic import bias_correction, layer_norm, mix, ratio_or_one, with_decay
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class LAMB(RuleOptimizer):
    """Adam in which every layer steps by a share of the norm of its weights.

    For transformers with batches of thousands, with warm-up; with small batches `AdamW` does as well.

        r = m_hat / (sqrt(v_hat) + epsilon) + weight_decay * w
        w = w - learning_rate * norm(w) / norm(r) * r            (1 if a norm is 0)

    Memory: 2 slots. Cost: elementwise and two norms per variable.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        beta_1: Float in [0, 1). Share of the first moment that stays.
        beta_2: Float in [0, 1). Share of the second moment that stays.
        epsilon: Float >= 0. Keeps the division finite.
        weight_decay: Float >= 0 or None, inside the trust ratio.
        **base_options: `clipnorm`, `global_clipnorm`, `use_ema`, ...: see `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.LAMB(0.1)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.84 , 2.156], dtype=float32)

    Differs from: Keras's Lamb, which decays outside of the trust ratio. For norms and biases without
    decay use `no_decay_on_norm_and_bias`.

    References:
        You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes", ICLR
        2020. arXiv:1904.00962.
    """

    slots = (Slot("momentum"), Slot("velocity"))
    decay_in_rule = True
    uses_geometry = True

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        weight_decay: float | None = 0.01,
        **base_options: Any,
    ):
        super().__init__(learning_rate, weight_decay=weight_decay, **base_options)
        self.beta_1 = _arguments.fraction("beta_1", beta_1)
        self.beta_2 = _arguments.fraction("beta_2", beta_2)
        self.epsilon = _arguments.not_negative("epsilon", epsilon)

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """Both bias corrections, as factors that are the same for all elements."""
        root = tf.sqrt(bias_correction(self.beta_2, step))
        return {
            "learning_rate": learning_rate,
            "scale": root / bias_correction(self.beta_1, step),
            "epsilon": root * self.epsilon,
        }

    @property
    def has_kernel(self) -> bool:
        """The kernels divide by the betas."""
        return self.beta_1 > 0 and self.beta_2 > 0

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithm 2 of the paper, with phi the identity."""
        m = mix(slots[0], grad, self.beta_1)
        v = mix(slots[1], tf.square(grad), self.beta_2)
        r = self._direction(param, m, v, scalars)
        return param - scalars["learning_rate"] * self._trust(param, r, scalars) * r, (m, v)

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        """The moments and the step by TensorFlow's kernels."""
        m, v = slots
        _kernels.follow(m, grad, self.beta_1)
        _kernels.follow(v, tf.square(grad), self.beta_2)
        value, m, v = (_kernels.read(resource, grad.dtype) for resource in (param, m, v))
        r = self._direction(value, m, v, scalars)
        trust = self._trust(value, r, scalars)
        if trust.shape.rank:  # one of each expert: the kernel takes a scalar
            r, trust = r * trust, tf.ones([], r.dtype)
        _kernels.descend(param, scalars["learning_rate"] * trust, r)

    def _trust(self, param: tf.Tensor, direction: tf.Tensor, scalars: Scalars) -> tf.Tensor:
        size, length = (layer_norm(x, scalars["geometry"].layer_axes) for x in (param, direction))
        return ratio_or_one(size, length)

    def _direction(self, param: tf.Tensor, m: tf.Tensor, v: tf.Tensor, scalars: Scalars) -> tf.Tensor:
        adam = scalars["scale"] * (m / (tf.sqrt(v) + scalars["epsilon"]))
        return with_decay(adam, param, scalars["weight_decay"])
