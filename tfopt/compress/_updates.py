"""How many optimizer updates a `fit` will make: fewer than steps if gradients are accumulated."""

from typing import Any

import keras

from tfopt.optimizers.gradient_accumulation import GradientAccumulation
from tfopt.schedules.batch_size import BatchSizeSchedule


def planned_updates(optimizer: keras.optimizers.Optimizer, params: dict[str, Any]) -> int | None:
    """Updates of the running `fit`, or None if it does not know its steps.

    Args:
        optimizer: As compiled, wrapped or not.
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
