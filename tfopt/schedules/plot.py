"""The curve of a schedule."""

import pathlib
from typing import Any

import numpy as np

from tfopt._checks import check_instance, check_integer
from tfopt._plot import save_lines
from tfopt.schedules._schedule import KerasSchedule
from tfopt.schedules.batch_size import BatchSizeSchedule

_POINTS = 1000


def plot(schedule: Any, steps: int, path: str | pathlib.Path) -> pathlib.Path:
    """Draws a learning-rate schedule over its updates, or a batch-size schedule over its samples.

    Args:
        schedule: A Keras or tfopt schedule of the rate, or a batch-size schedule.
        steps: Length of the horizontal axis, >= 1: updates, or samples for a batch-size schedule.
        path: File to write; the suffix chooses the format (.png, .svg, .pdf).

    Returns:
        The path.

    Example:
        >>> path = tfopt.schedules.plot(tfopt.schedules.OneCycle(0.4, 1000), 1000, "rate.png")
    """
    check_instance("schedule", schedule, (KerasSchedule, BatchSizeSchedule))
    check_integer("steps", steps, minimum=1)
    positions = np.unique(np.linspace(0, steps - 1, min(steps, _POINTS)).astype(int)).tolist()
    values = [float(schedule(position)) for position in positions]
    batches = isinstance(schedule, BatchSizeSchedule)
    y_label = "batch size" if batches else "learning rate"
    x_label = "samples seen" if batches else "update"
    return save_lines(path, positions, {y_label: values}, x_label=x_label, y_label=y_label, steps=batches)
