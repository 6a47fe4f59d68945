"""How well the outputs of a trained model fit the labels, to choose the scale of its pixels by."""

import math

import numpy as np

from tfopt.compress._pixel_scales import Fitness
from tfopt.tasks import Task
from tfopt.tasks.tally import Tally


def fitness(task: Task, labels: np.ndarray, outputs: np.ndarray) -> Fitness:
    """`fitness_of` outputs of which all are at hand.

    Args:
        task: What the outputs mean.
        labels: As `Task.measures` takes them.
        outputs: [examples, outputs], probabilities or numbers.
    """
    tally = task.tally()
    tally.add(labels, outputs)
    return fitness_of(tally)


def fitness_of(tally: Tally) -> Fitness:
    """The measure that `chance` names, the loss of probabilities, the standard error of a share."""
    if not tally.is_finite:
        return Fitness(-math.inf)
    measure, _, _ = tally.chance()
    score, loss = tally.measures()[measure], tally.log_loss()
    if loss is None:
        return Fitness(score)
    count = tally.count
    return Fitness(score, loss, max(1 / count, math.sqrt(max(0.0, score * (1 - score)) / count)))
