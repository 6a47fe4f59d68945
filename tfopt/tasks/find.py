"""The task of a data set, of a stored description, or of outputs."""

from collections.abc import Mapping, Sequence
from typing import Any

from tfopt._checks import check_choice
from tfopt.tasks.classification import Classification
from tfopt.tasks.multi_label import MultiLabel
from tfopt.tasks.regression import Regression
from tfopt.tasks.task import Task

_TASKS: dict[str, Any] = {task.name: task for task in (Classification, MultiLabel, Regression)}


def make_task(stored: Mapping[str, Any]) -> Task:
    """The task of `Task.stored`, or of any mapping with "task" and "names".

    Raises:
        ValueError: If there is no such task.
    """
    values = {key: value for key, value in stored.items() if key != "task"}
    return _TASKS[check_choice("task", stored["task"], tuple(_TASKS))](**values)


def infer_task(names: Sequence[str], activation: str | None) -> Task:
    """The task of a model that does not say it, by what it ends in: sigmoid means several labels.

    A model that ends in a softmax, or in logits, is taken for a classifier.
    """
    return MultiLabel(names) if activation == "sigmoid" else Classification(names)
