"""Prodigy: Adam that estimates its own learning rate. arXiv:2306.06101."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments
from tfopt.optimizers._arithmetic import with_decay
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class Prodigy(RuleOptimizer):
    """Adam that finds its learning rate from how far the weights have moved along the gradients.

    When there is no time to tune the rate: leave it at 1 and use a cosine or linear decay to 0. Not
    with rates per layer, and it needs some hundred steps before it moves.

        m = beta_1 * m + (1 - beta_1) * d * g;  v = beta_2 * v + (1 - beta_2) * (d * g)**2
        numerator = beta_3 * numerator + d / d0 * rate * <g, w0 - w>;  rate = learning_rate * d
        s = beta_3 * s + d / d0 * rate * g;  d' = max(d, d_coefficient * numerator / sum|s|)
        w = w - rate * weight_decay * w - rate * m / (sqrt(v) + d' * epsilon)

    Memory: 4 slots. Cost: elementwise, and three sums over all variables.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule, with 1.0 as its largest value.
        beta_1: Float in [0, 1). Share of the first moment that stays.
        beta_2: Float in [0, 1). Share of the second moment that stays.
        epsilon: Float >= 0. Keeps the division finite.
        beta_3: Float in [0, 1) or None. Memory of the estimate; None is the root of `beta_2`.
        d0: Float > 0. First estimate of the distance to the solution.
        d_coefficient: Float > 0. Multiplies the estimate.
        **base_options: `weight_decay` (multiplied by the estimated rate), `clipnorm`,
            `global_clipnorm`, `use_ema`, ...: see `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.Prodigy(d0=0.01)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.926, 2.074], dtype=float32)

    Differs from: Optax, which always corrects the bias; the authors' default does not.

    References:
        Mishchenko, Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", ICML 2024.
        arXiv:2306.06101.
    """

    slots = (Slot("momentum"), Slot("velocity"), Slot("sum"), Slot("start", tf.identity))
    decay_in_rule = True
    reduces_values = True

    @property
    def state(self) -> Mapping[str, float]:
        """Estimate of the distance and its numerator."""
        return {"d": self.d0, "numerator": 0.0}

    def __init__(
        self,
        learning_rate: Any = 1.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        beta_3: float | None = None,
        d0: float = 1e-6,
        d_coefficient: float = 1.0,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.beta_1 = _arguments.fraction("beta_1", beta_1)
        self.beta_2 = _arguments.fraction("beta_2", beta_2)
        self.epsilon = _arguments.not_negative("epsilon", epsilon)
        self.beta_3 = _arguments.optional("beta_3", beta_3, _arguments.fraction)
        self.d0 = _arguments.positive("d0", d0)
        self.d_coefficient = _arguments.positive("d_coefficient", d_coefficient)

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """The rate before the estimate; at the first step the distance from the start is 0."""
        return {"learning_rate": learning_rate, "first": step < 2}

    def reduce(self, params: list, grads: list, slots: list, scalars: Scalars, state: Scalars) -> Any:
        """The estimate of this step, and the next one."""
        d, rate = state["d"], state["d"] * scalars["learning_rate"]
        moved = [
            tf.where(scalars["first"], tf.zeros([], d.dtype), tf.reduce_sum(g * (start - w)))
            for w, g, (*_, start) in zip(params, grads, slots)
        ]
        numerator = self._beta_3() * state["numerator"] + d / self.d0 * rate * tf.add_n(moved)
        sums = [self._sum(s, g, d * rate / self.d0) for g, (_, _, s, _) in zip(grads, slots)]
        total = tf.add_n([tf.reduce_sum(tf.abs(s)) for s in sums])
        estimate = self.d_coefficient * numerator / tf.where(total > 0, total, 1)
        known = tf.logical_and(total > 0, scalars["learning_rate"] > 0)
        following = tf.where(known, tf.maximum(d, estimate), d)
        further = {"d": d, "next_d": following, "base_rate": rate}
        return further, {"d": following, "numerator": tf.where(total > 0, numerator, state["numerator"])}

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithm 4 of the paper, in the form of the authors' code."""
        m, v, s, start = slots
        d, rate = scalars["d"], scalars["d"] * scalars["learning_rate"]
        m = self.beta_1 * m + (1 - self.beta_1) * d * grad
        v = self.beta_2 * v + (1 - self.beta_2) * tf.square(d * grad)
        s = self._sum(s, grad, d * scalars["base_rate"] / self.d0)
        step = m / (tf.sqrt(v) + scalars["next_d"] * self.epsilon)
        step = with_decay(step, param, scalars["weight_decay"])
        return param - rate * step, (m, v, s, tf.where(scalars["first"], param, start))

    def _beta_3(self) -> float:
        return math.sqrt(self.beta_2) if self.beta_3 is None else self.beta_3

    def _sum(self, s: tf.Tensor, grad: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        return self._beta_3() * s + weight * grad
