"""Cautious: only the part of a step that agrees with the gradient. arXiv:2411.16085."""

from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers._kernels import assign, read
from tfopt.optimizers._slots import slot_dtype
from tfopt.optimizers._update import handle
from tfopt.optimizers._wrapper import OptimizerWrapper, moves_weights, refuse_inside
from tfopt.optimizers.gradient_accumulation import GradientAccumulation
from tfopt.optimizers.lookahead import Lookahead


@keras.saving.register_keras_serializable(package="tfopt")
class Cautious(OptimizerWrapper):
    """Drops the elements of a step that point against the gradient, and enlarges the others.

    Around optimizers with momentum (AdamW, Lion, SGD): often a little faster at the same learning rate.
    Nothing to gain without momentum, where step and gradient always agree.

        u = step of the inner optimizer;  mask = 1 where u * g > 0, else 0
        w = w - u * mask / max(mean(mask), 0.001)

    Memory: a copy of the weights during the step. Cost: elementwise.

    Args:
        optimizer: The Keras optimizer to wrap.
        **base_options: `name`.

    Raises:
        ValueError: If the inner optimizer averages its weights (`use_ema`, Schedule-Free), which the
            correction would contradict, accumulates, so that its step is not one of the last gradient alone,
            or holds a `Lookahead`, whose slow weights would miss the correction.

    Example:
        >>> optimizer = tfopt.optimizers.Cautious(keras.optimizers.SGD(0.1, momentum=0.9))
        >>> weight = keras.Variable([1.0, 1.0])
        >>> optimizer.apply([tf.constant([1.0, 1.0])], [weight])
        >>> optimizer.apply([tf.constant([1.0, -0.1])], [weight])
        >>> weight.numpy().round(3)
        array([0.52, 0.9 ], dtype=float32)

    Differs from: implementations inside an optimizer, whose mask leaves weight decay aside; here the
    whole step is compared with the gradient.

    References:
        Liang, Chen, Liu, Liu, "Cautious Optimizers: Improving Training with One Line of Code", 2024.
        arXiv:2411.16085.
    """

    def __init__(self, optimizer: Any, **base_options: Any):
        super().__init__(optimizer, **base_options)
        moves_weights(self)
        reason = (
            "its step is that of several gradients. Put it outside: GradientAccumulation(Cautious(...), n)."
        )
        refuse_inside(self, self.inner_optimizer, (GradientAccumulation,), reason)
        reason = "the correction would move the weights away from its slow ones. Put it outside: Lookahead("
        refuse_inside(self, self.inner_optimizer, (Lookahead,), f"{reason}Cautious(...)).")

    def step(self, grads: list[Any], variables: list[Any]) -> None:
        """The inner step, then its correction."""
        old = [read(handle(variable), variable.dtype) for variable in variables]
        self.inner_optimizer.apply(grads, variables)
        for variable, before, grad in zip(variables, old, grads):
            dtype = slot_dtype(variable)
            start, grad = tf.cast(before, dtype), tf.cast(tf.convert_to_tensor(grad), dtype)
            step = start - tf.cast(read(handle(variable), variable.dtype), dtype)
            mask = tf.cast(step * grad > 0, dtype)
            new = start - step * mask / tf.maximum(tf.reduce_mean(mask), 1e-3)
            if variable.constraint is not None:
                new = tf.convert_to_tensor(variable.constraint(new))
            assign(handle(variable), tf.cast(new, variable.dtype))
