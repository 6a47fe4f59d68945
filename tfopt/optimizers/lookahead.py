"""Lookahead: k fast steps forward, one step back towards the slow weights. arXiv:1907.08610."""

from typing import Any

import keras
import tensorflow as tf

from tfopt import _checks
from tfopt.optimizers._assigned import Followers
from tfopt.optimizers._kernels import assign, read
from tfopt.optimizers._slots import Slot, create_slots, slot_dtype
from tfopt.optimizers._update import handle
from tfopt.optimizers._wrapper import OptimizerWrapper, moves_weights


@keras.saving.register_keras_serializable(package="tfopt")
class Lookahead(OptimizerWrapper):
    """Pulls the weights back towards slow weights every `sync_period` updates.

    Steadies an optimizer with a high learning rate at almost no cost. Of little use with a schedule
    that decays to zero, or together with weight averaging, which does a similar thing.

        w = inner step                                   (every update)
        slow = slow + slow_step * (w - slow); w = slow   (every sync_period updates)

    Memory: 1 slot. Cost: one elementwise pass every `sync_period` updates.

    Args:
        optimizer: The Keras optimizer to wrap.
        sync_period: Int >= 1, in updates of the inner optimizer; the paper's k.
        slow_step: Float in [0, 1]. Share of the way that the slow weights go; the paper's alpha. With 1
            this is the inner optimizer.
        **base_options: `name`.

    Raises:
        TypeError: If `optimizer` is not a Keras optimizer or `sync_period` not an integer.
        ValueError: If a number is out of its bounds or not finite, or if the inner optimizer averages
            its weights (`use_ema`, Schedule-Free), which would miss the steps back.

    Example:
        >>> optimizer = tfopt.optimizers.Lookahead(keras.optimizers.SGD(0.1), sync_period=1, slow_step=0.5)
        >>> weight = keras.Variable([1.0])
        >>> optimizer.apply([tf.constant([1.0])], [weight])
        >>> weight.numpy()
        array([0.95], dtype=float32)

    References:
        Zhang, Lucas, Hinton, Ba, "Lookahead Optimizer: k steps forward, 1 step back", NeurIPS 2019.
        arXiv:1907.08610.
    """

    def __init__(self, optimizer: Any, sync_period: int = 6, slow_step: float = 0.5, **base_options: Any):
        super().__init__(optimizer, **base_options)
        moves_weights(self)
        self.sync_period = _checks.check_integer("sync_period", sync_period, minimum=1)
        self.slow_step = _checks.check_number("slow_step", slow_step, minimum=0, maximum=1)

    @property
    def sums_gradients(self) -> bool:
        """An inner wrapper sums the gradients itself; Lookahead only looks at the weights."""
        return not isinstance(self.inner_optimizer, OptimizerWrapper)

    def build_own(self, variables: Any) -> None:
        """Creates the slow weights."""
        slots = create_slots(self, variables, [Slot("slow", tf.identity)])
        self._slow = [own[0] if own else None for own in slots]
        states = [[(slow, tf.identity) for slow in own] for own in slots]
        self._followers = Followers(self.iterations, variables, states)

    def step(self, grads: list[Any], variables: list[Any]) -> None:
        """The inner step; after every `sync_period` updates the step back."""
        before = tf.identity(self.iterations)
        tf.cond(tf.equal(before, 0), self._start, tf.no_op)
        self.inner_optimizer.apply(grads, variables)
        after = tf.identity(self.iterations)
        # An inner accumulation does not update at every call.
        due = tf.logical_and(after > before, tf.equal(after % self.sync_period, 0))
        tf.cond(due, self._synchronise, tf.no_op)

    def _pairs(self) -> list[Any]:
        """Fast and slow weights; the scales of float8 training have no slow ones."""
        pairs = zip(self._trainable_variables, self._slow)
        return [(variable, slow) for variable, slow in pairs if slow is not None]

    def _start(self) -> tf.Operation:
        """Weights may have been loaded since the slow weights were created."""
        for variable, slow in self._pairs():
            assign(handle(slow), tf.cast(read(handle(variable), variable.dtype), slow.dtype))
        return tf.no_op()

    def _synchronise(self) -> tf.Operation:
        for variable, slow in self._pairs():
            dtype = slot_dtype(variable)
            old = read(handle(slow), dtype)
            new = old + self.slow_step * (tf.cast(read(handle(variable), variable.dtype), dtype) - old)
            if variable.constraint is not None:
                new = tf.convert_to_tensor(variable.constraint(new))
            assign(handle(slow), new)
            assign(handle(variable), tf.cast(new, variable.dtype))
        return tf.no_op()
