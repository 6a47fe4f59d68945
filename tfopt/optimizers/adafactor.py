"""Adafactor: a second moment of row and column means, steps relative to the weights. arXiv:1804.04235."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfopt._checks import check_number
from tfopt.optimizers import _arguments
from tfopt.optimizers._arithmetic import mix
from tfopt.optimizers._geometry import Geometry
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class Adafactor(RuleOptimizer):
    """Adam without its memory: the second moment of a matrix is the product of a row and a column.

    For models whose optimizer state does not fit into memory. The state of a kernel is one number for each
    input and each output. Steps are relative to the size of the weights, so that one rate fits most networks.

        beta_2 = 1 - t**beta_2_decay
        r = beta_2 * r + (1 - beta_2) * mean of (g**2 + epsilon_1) over the last axis
        c = beta_2 * c + (1 - beta_2) * mean of (g**2 + epsilon_1) over the last axis but one
        u = g / sqrt(r * c / mean of r over the last axis)                    (vectors have a whole v)
        u = u / max(1, rms(u) / clip_threshold)
        m = momentum * m + (1 - momentum) * u                                   (u without momentum)
        w = w - min(learning_rate, 1 / sqrt(t)) * max(epsilon_2, rms(w)) * m

    Memory: the rows and columns of a kernel; 1 slot more with momentum. Cost: elementwise and two means.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule: the largest step relative to the weights.
        beta_2_decay: Float < 0. How fast the share of the second moment that stays goes to 1.
        epsilon_1: Float >= 0. Added to squared gradients.
        epsilon_2: Float >= 0. Smallest size of the weights that steps are relative to.
        clip_threshold: Float > 0. Largest root mean square of the update before the rate.
        momentum: Float in [0, 1). Share of the mean update that stays. The paper has none.
        **base_options: `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`, ...: see
            `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.Adafactor(0.1)
        >>> weight = keras.Variable([3.0, 4.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([2.646, 4.354], dtype=float32)

    Differs from `keras.optimizers.Adafactor`, which makes the same updates: that keeps the whole second
    moment as well, so that their states do not fit each other. Its `relative_step` has no effect, so that it
    is left out. The default rate is the paper's.

    References:
        Shazeer, Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost", ICML 2018.
        arXiv:1804.04235.
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        beta_2_decay: float = -0.8,
        epsilon_1: float = 1e-30,
        epsilon_2: float = 1e-3,
        clip_threshold: float = 1.0,
        momentum: float = 0.0,
        **base_options: Any,
    ):
        super().__init__(learning_rate, **base_options)
        self.beta_2_decay = check_number("beta_2_decay", beta_2_decay, maximum=0.0, open_maximum=True)
        self.epsilon_1 = _arguments.not_negative("epsilon_1", epsilon_1)
        self.epsilon_2 = _arguments.not_negative("epsilon_2", epsilon_2)
        self.clip_threshold = _arguments.positive("clip_threshold", clip_threshold)
        self.momentum = _arguments.fraction("momentum", momentum)

    @property
    def slots(self) -> Sequence[Slot]:
        """Means of rows and of columns; a vector keeps its whole second moment in the first of them."""
        momentum = (Slot("momentum"),) if self.momentum else ()
        return (Slot("row_mean", shape=_rows), Slot("column_mean", shape=_columns), *momentum)

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """The relative step, and the share of the second moment that stays: 0 at the first step."""
        return {
            "relative_step": tf.minimum(learning_rate, tf.math.rsqrt(step)),
            "beta_2": 1 - tf.pow(step, tf.constant(self.beta_2_decay, step.dtype)),
        }

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithms 4 and 5 of the paper; each root is taken alone, as products of means underflow."""
        beta_2, square = scalars["beta_2"], tf.square(grad) + self.epsilon_1
        if len(param.shape) < 2:
            r, c = mix(slots[0], square, beta_2), slots[1]
            update = tf.math.divide_no_nan(grad, tf.sqrt(r))
        else:
            r = mix(slots[0], tf.reduce_mean(square, -1), beta_2)
            c = mix(slots[1], tf.reduce_mean(square, -2), beta_2)
            share = tf.math.divide_no_nan(r, tf.reduce_mean(r, -1, keepdims=True))
            update = tf.math.divide_no_nan(grad, tf.sqrt(share)[..., :, None])
            update = tf.math.divide_no_nan(update, tf.sqrt(c)[..., None, :])
        update /= tf.maximum(_rms(update) / self.clip_threshold, 1.0)
        alpha = scalars["relative_step"] * tf.maximum(_rms(param), self.epsilon_2)
        if not self.momentum:
            return param - alpha * update, (r, c)
        m = mix(slots[2], update, self.momentum)
        return param - alpha * m, (r, c, m)


def _rows(geometry: Geometry) -> tuple[int, ...]:
    return geometry.shape[:-1] if len(geometry.shape) > 1 else geometry.shape


def _columns(geometry: Geometry) -> tuple[int, ...]:
    return (*geometry.shape[:-2], geometry.shape[-1]) if len(geometry.shape) > 1 else ()


def _rms(x: tf.Tensor) -> tf.Tensor:
    return tf.sqrt(tf.reduce_mean(tf.square(x)))
