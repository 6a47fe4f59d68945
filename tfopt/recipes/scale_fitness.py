"""How well the outputs of a trained model fit the labels, to choose the scale of its pixels by."""

import math

import numpy as np

from tfopt.compress._pixel_scales import Fitness
from tfopt.tasks import Task


def fitness(task: Task, labels: np.ndarray, outputs: np.ndarray) -> Fitness:
    """The measure of the task that `chance` names, the loss of probabilities, the standard error of a share.

    Args:
        task: What the outputs mean.
        labels: As `Task.measures` takes them.
        outputs: [examples, outputs], probabilities or numbers.
    """
    if not np.isfinite(outputs).all():
        return Fitness(-math.inf)
    measure, _, _ = task.chance(labels)
    score, loss = task.measures(labels, outputs)[measure], task.log_loss(labels, outputs)
    if loss is None:
        return Fitness(score)
    count = len(labels)
    return Fitness(score, loss, max(1 / count, math.sqrt(max(0.0, score * (1 - score)) / count)))
