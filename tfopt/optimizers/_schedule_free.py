"""Schedule-Free averaging, shared by its SGD and AdamW forms. Defazio et al., arXiv:2405.15682."""

import abc
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfopt import _checks
from tfopt.optimizers._arithmetic import with_decay
from tfopt.optimizers._rule import RuleOptimizer, Scalars


class ScheduleFree(RuleOptimizer, abc.ABC):
    """Trains at y, between the fast weights z (a slot) and their average x, which is what to evaluate.

    The variables hold y. x follows from y and z, so it costs no memory: see `average_values`.
    """

    state = {"largest_rate": 0.0, "weight_sum": 0.0}
    decay_in_rule = True
    derived_weights = True
    restarts = ("weight_sum",)

    def __init__(
        self, learning_rate: Any, interpolation: tuple[str, float], warmup_steps: int, **options: Any
    ):
        super().__init__(learning_rate, **options)
        name, value = interpolation
        self._interpolation = _checks.check_number(
            name, value, minimum=0, maximum=1, open_minimum=True, open_maximum=True
        )
        self.warmup_steps = _checks.check_integer("warmup_steps", warmup_steps, minimum=0)

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """The rate of this step in the linear warm-up."""
        share = tf.minimum(step / self.warmup_steps, 1) if self.warmup_steps else tf.ones_like(step)
        return {"rate": learning_rate * share, "first": step < 2}

    def reduce(self, params: list, grads: list, slots: list, scalars: Scalars, state: Scalars) -> Any:
        """The share of this step in the average: weights are the squares of the largest rate so far."""
        largest = tf.maximum(state["largest_rate"], scalars["rate"])
        weight = tf.square(largest)
        total = state["weight_sum"] + weight
        share = tf.where(total > 0, weight / tf.where(total > 0, total, 1), 0)
        return {"share": share}, {"largest_rate": largest, "weight_sum": total}

    def step(
        self, y: tf.Tensor, z: tf.Tensor, direction: tf.Tensor, scalars: Scalars
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The new y and z, as in the authors' code: x never appears.

        y follows from the new z: with the old one, XLA would have to copy both to update them in place.
        """
        share, rate, beta = scalars["share"], scalars["rate"], self._interpolation
        direction = with_decay(direction, y, scalars["weight_decay"])
        z = tf.where(scalars["first"], y, z) - rate * direction
        return y + share * (z - y) - rate * (1 - beta) * (1 - share) * direction, z

    def average_values(self, variables: Sequence[Any]) -> list[tf.Tensor]:
        """x = (y - (1 - beta) * z) / beta, the weights to evaluate and to save."""
        beta = self._interpolation
        averages = []
        for variable in variables:
            slots = self._slots[self._get_variable_index(variable)]
            if not slots:  # a scale of float8 training, which is overwritten
                averages.append(tf.convert_to_tensor(variable))
                continue
            z = tf.convert_to_tensor(slots[0])
            y = tf.cast(tf.convert_to_tensor(variable), z.dtype)
            averages.append(tf.cast((y - (1 - beta) * z) / beta, variable.dtype))
        return averages
