"""SM3: Adagrad with a number per row and column, not per weight. arXiv:1901.11150."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments
from tfopt.optimizers._arithmetic import mix
from tfopt.optimizers._geometry import Geometry
from tfopt.optimizers._rule import RuleOptimizer, Scalars, Slot, Tensors


@keras.saving.register_keras_serializable(package="tfopt")
class SM3(RuleOptimizer):
    """Adagrad that keeps one number for each row, column and further slice of a weight, not for each element.

    For large embeddings and transformers whose optimizer state does not fit into memory; without momentum
    the state is next to nothing. It wants a warm-up, and like Adagrad no decay of the rate afterwards.

        a = min over the slices of each element of their numbers, + g**2
        direction = g / sqrt(a)                                           (0 where a is 0)
        number of a slice = the largest a in it
        m = momentum * m + (1 - momentum) * direction
        w = w - learning_rate * m

    Memory: 1 slot and the sum of the sides of the variable; with `momentum=0` only that. Cost: elementwise
    and a maximum over each axis.

    Args:
        learning_rate: Float >= 0 or a learning rate schedule.
        momentum: Float in [0, 1). Share of the mean direction that stays.
        **base_options: `weight_decay`, `clipnorm`, `global_clipnorm`, `use_ema`, ...: see
            `RuleOptimizer`.

    Raises:
        ValueError: If a number is out of its bounds or not finite.

    Example:
        >>> optimizer = tfopt.optimizers.SM3(0.1, momentum=0.0)
        >>> weight = keras.Variable([1.0, 2.0])
        >>> optimizer.apply([tf.constant([0.3, -5.0])], [weight])
        >>> weight.numpy().round(3)
        array([0.9, 2.1], dtype=float32)

    Differs from: The authors' code for sparse gradients, which updates the touched rows only and without
    momentum. Here they are added up and treated as dense ones, as the paper has it.

    References:
        Anil, Gupta, Koren, Singer, "Memory-Efficient Adaptive Optimization", NeurIPS 2019.
        arXiv:1901.11150.
    """

    def __init__(self, learning_rate: Any = 0.1, momentum: float = 0.9, **base_options: Any):
        super().__init__(learning_rate, **base_options)
        self.momentum = _arguments.fraction("momentum", momentum)

    @property
    def slots(self) -> Sequence[Slot]:
        """The numbers of all slices in one vector, those of the first axis first; the momentum."""
        return (Slot("accumulator", shape=_numbers), *([Slot("momentum")] if self.momentum else ()))

    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """Algorithm SM3-II of the paper, with the slices of every axis as its cover."""
        shape = param.shape.as_list()
        if len(shape) < 2:
            bound = slots[0] + tf.square(grad)
            accumulator = bound
        else:
            bound = _least(slots[0], shape) + tf.square(grad)
            axes = range(len(shape))
            largest = [tf.reduce_max(bound, [other for other in axes if other != axis]) for axis in axes]
            accumulator = tf.concat(largest, 0)
        direction = tf.math.divide_no_nan(grad, tf.sqrt(bound))
        if not self.momentum:
            return param - scalars["learning_rate"] * direction, (accumulator,)
        m = mix(slots[1], direction, self.momentum)
        return param - scalars["learning_rate"] * m, (accumulator, m)


def _numbers(geometry: Geometry) -> tuple[int, ...]:
    return (sum(geometry.shape),) if len(geometry.shape) > 1 else geometry.shape


def _least(numbers: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    """For each element the least number of the slices that it lies in."""
    parts = tf.split(numbers, shape)
    least = tf.fill(shape, tf.constant(math.inf, numbers.dtype))
    for axis, part in enumerate(parts):
        sides = [size if other == axis else 1 for other, size in enumerate(shape)]
        least = tf.minimum(least, tf.reshape(part, sides))
    return least
