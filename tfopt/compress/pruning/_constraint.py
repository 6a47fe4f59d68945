"""The constraint that keeps pruned weights at zero and renews its mask inside the training graph."""

from collections.abc import Callable
from typing import Any, TypeAlias, final

import keras
import tensorflow as tf

from tfopt.compress._updates import Updates
from tfopt.compress.pruning.masks import threshold
from tfopt.compress.pruning.schedules import Schedule

MaskRule: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@final
class MaskConstraint(keras.constraints.Constraint):
    """Multiplies a weight by its mask after every optimizer update.

    Args:
        variable: The weight. Its own constraint, if any, is applied first.
        updates: The number of finished optimizer updates.
        schedule: `schedule(step) -> (due, sparsity)`.
        rule: `rule(weights, sparsity) -> mask`.
        restore: Weights that are zero now stay zero, unless all are.
    """

    def __init__(
        self,
        variable: keras.Variable,
        updates: Updates,
        schedule: Schedule,
        rule: MaskRule,
        restore: bool,
    ) -> None:
        before = variable.constraint
        self.inner: Any = before.inner if isinstance(before, MaskConstraint) else before
        self.updates, self.schedule, self.rule = updates, schedule, rule
        nonzero = variable.numpy() != 0
        self.floor = nonzero if restore and nonzero.any() and not nonzero.all() else None
        start = nonzero if self.floor is not None else nonzero | True
        self.mask = keras.Variable(
            start.astype(variable.dtype), trainable=False, name="mask", aggregation="only_first_replica"
        )

    def __call__(self, weights: Any) -> tf.Tensor:
        """The masked weights after an update; a new mask first, if one is due before the next."""
        value = tf.convert_to_tensor(self.inner(weights) if self.inner else weights)
        step = self.updates() + 2  # that of the next update: the optimizer counts this one later
        self.updates.advance()
        return value * self._renewed(value, step)

    def renew(self, variable: keras.Variable) -> None:
        """Applies the mask that is due before the next update."""
        value = tf.convert_to_tensor(variable)
        variable.assign(value * self._renewed(value, self.updates() + 1))

    def freeze(self) -> None:
        """Keeps the mask as it is from now on, whatever optimizer trains the weight."""
        self.schedule = _never

    def _renewed(self, value: tf.Tensor, step: Any) -> tf.Tensor:
        due, sparsity = self.schedule(step)
        mask = tf.convert_to_tensor(self.mask)
        # The branch only computes: under a strategy, an assignment inside `cond` cannot be synchronised.
        mask = tf.cond(due, lambda: self._make(value, sparsity), lambda: mask)
        self.mask.assign(mask)
        return mask

    def _make(self, value: tf.Tensor, sparsity: tf.Tensor) -> tf.Tensor:
        if self.floor is None:
            return self.rule(value, sparsity)
        floor = tf.constant(self.floor, value.dtype)
        return self.rule(value * floor, sparsity) * floor


@final
class GlobalThreshold:
    """One magnitude limit for all weights: the constraint that runs first computes it, the others read it.

    The optimizer applies the constraints one after the other when all weights have been updated.

    Args:
        schedule: `schedule(step) -> (due, sparsity)`; here it becomes `(due, limit)`.
        variables: All weights that compete, in the order of the updates.
    """

    def __init__(self, schedule: Schedule, variables: list[keras.Variable]) -> None:
        self.schedule, self.variables = schedule, variables
        self.limit = keras.Variable(0.0, trainable=False, name="limit", aggregation="only_first_replica")

    def leader(self, step: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Schedule of the first weight."""
        due, sparsity = self.schedule(step)
        before = tf.convert_to_tensor(self.limit)
        limit = tf.cond(due, lambda: self._compute(sparsity), lambda: before)
        self.limit.assign(limit)
        return due, limit

    def follower(self, step: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Schedule of the other weights."""
        return self.schedule(step)[0], tf.convert_to_tensor(self.limit)

    def _compute(self, sparsity: tf.Tensor) -> tf.Tensor:
        scores = [tf.reshape(tf.abs(tf.convert_to_tensor(v)), [-1]) for v in self.variables]
        return threshold(tf.concat(scores, axis=0), sparsity)


def _never(step: Any) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.constant(False), tf.constant(0.0)
