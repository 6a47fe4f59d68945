"""Counts the optimizer updates of a `fit`: not one per step if gradients are accumulated."""

from typing import Any, final

import keras
import tensorflow as tf

from tfopt.optimizers.gradient_accumulation import GradientAccumulation
from tfopt.schedules.batch_size import BatchSizeSchedule


@final
class Updates:
    """Number of finished updates of one weight, as a tensor.

    It is the optimizer's `iterations`. A model without an optimizer is trained by a loop of the user's own:
    then it is the number of calls of `advance`, which the weight's constraint makes once per update.

    Args:
        optimizer: The compiled optimizer, or None.
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._count = None
        if optimizer is None:
            self._count = keras.Variable(
                0, dtype="int64", trainable=False, name="updates", aggregation="only_first_replica"
            )

    def __call__(self) -> tf.Tensor:
        """Updates before the current one."""
        return tf.cast(self._optimizer.iterations if self._count is None else self._count, tf.int64)

    def advance(self) -> None:
        """Counts an update, if no optimizer does."""
        if self._count is not None:
            self._count.assign_add(1)


def planned_updates(optimizer: keras.optimizers.Optimizer | None, params: dict[str, Any]) -> int | None:
    """Updates of the running `fit`, or None if it does not know its steps.

    Args:
        optimizer: As compiled, wrapped or not; None for a model that is not compiled.
        params: `params` of a callback.
    """
    if not params.get("steps"):
        return None
    updates = params["steps"] * params.get("epochs", 1)
    layer: Any = optimizer
    while layer is not None:
        if isinstance(layer, GradientAccumulation):
            updates = _accumulated(layer, updates)
        updates //= layer.gradient_accumulation_steps or 1
        layer = getattr(layer, "inner_optimizer", None)
    return max(updates, 1)


def _accumulated(optimizer: GradientAccumulation, calls: int) -> int:
    if isinstance(optimizer.steps, BatchSizeSchedule):
        return optimizer.steps.total_steps(calls * (optimizer.micro_batch_size or 1))
    return calls // optimizer.steps
