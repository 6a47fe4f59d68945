"""`class_weight`: how much the images of each class count while a model trains."""

import difflib
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfopt import tasks
from tfopt._checks import message

BALANCED = "balanced"


def class_weights(
    option: Mapping[str | int, float] | str, task: tasks.Task, counts: Sequence[int]
) -> np.ndarray:
    """The weight of each class, float32.

    Args:
        option: Weights by the name or the number of a class, others have 1; or "balanced": the number of
            images over that of the class times the number of classes, as in scikit-learn, so that all classes
            count the same and the mean over the images is 1.
        task: Of the images.
        counts: Training images of each class.

    Raises:
        ValueError: If a class is unknown or a weight is no number >= 0; if images do not have one class each.
    """
    if not isinstance(task, tasks.Classification):
        fix = "Give the images weights of their own: a column `weight` in the table, or (x, y, weights)."
        raise ValueError(message("class_weight", f"None for {task.name}", option, fix))
    if isinstance(option, str):
        numbers_of = np.asarray(counts, float)
        present = numbers_of > 0
        balanced = numbers_of.sum() / (present.sum() * np.maximum(numbers_of, 1))
        return np.where(present, balanced, 1.0).astype("float32")
    found: np.ndarray = np.ones(task.outputs, "float32")
    for key, weight in option.items():
        found[_number_of(key, list(task.names))] = _checked(key, weight)
    if not (found * np.asarray(counts)).any():
        raise ValueError(message("class_weight", "above 0 for a class that has images", dict(option)))
    return found


def with_class_weights(table: np.ndarray, labels: Any, given: Any = 1.0) -> tuple[Any, Any]:
    """(labels, weights) of a batch for which the loss is that of each class times its weight.

    Args:
        table: The weight of each class.
        labels: Rows that add up to 1, one-hot or mixed.
        given: Weights that the images have already.
    """
    import tensorflow as tf

    parts = labels * table
    weights = tf.reduce_sum(parts, -1)
    return tf.math.divide_no_nan(parts, weights[:, None]), weights * given


def _number_of(key: Any, names: list[str]) -> int:
    """The number of a class from its name or its number, which files of JSON hold as text."""
    if isinstance(key, str) and key in names:
        return names.index(key)
    text, known = str(key), ", ".join(map(repr, names[:6])) + (", ..." if len(names) > 6 else "")
    if not isinstance(key, bool) and text.isdigit() and int(text) < len(names):
        if text in names and names.index(text) != int(text):
            fix = f"{text} is a name, and the number of the class {names[int(text)]!r}: write names as text."
            raise ValueError(message("class_weight", f"by names of classes ({known})", key, fix))
        return int(text)
    near = difflib.get_close_matches(text, names, 1)
    fix = f"Did you mean {near[0]!r}?" if near else f"Numbers go from 0 to {len(names) - 1}."
    raise ValueError(message("class_weight", f"by names or numbers of classes ({known})", key, fix))


def _checked(key: Any, weight: Any) -> float:
    if isinstance(weight, numbers.Real) and not isinstance(weight, bool) and 0 <= float(weight) < np.inf:
        return float(weight)
    raise ValueError(message("class_weight", f"a number >= 0 for {key!r}", weight))
