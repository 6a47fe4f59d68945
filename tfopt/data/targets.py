"""Checks labels of the three tasks and names their classes or targets."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfopt._checks import check_choice, message

_TASKS = ("classification", "multilabel", "regression")


def check_task(task: Any) -> str | None:
    """One of the three tasks, or None for the one that the labels suggest."""
    return check_choice("task", task, (*_TASKS, None))


def check_weights(weights: Any, count: int) -> np.ndarray:
    """float32 sample weights [count], finite and not negative."""
    values = np.asarray(weights)
    if values.shape != (count,) or not np.issubdtype(values.dtype, np.number):
        raise ValueError(message("sample weights", f"{count} numbers", f"{values.dtype} {values.shape}"))
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(message("sample weights", "finite and >= 0", f"{values.min()} to {values.max()}"))
    return values.astype(np.float32)


def named_targets(
    labels: Mapping[str, np.ndarray], names: Sequence[str] | None, task: str
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Labels of every split as `ImageDataset` has them, and the names of the classes or targets.

    Args:
        labels: Arrays by split.
        names: Given names, or None for "0", "1", ... ("target" for the only target of a regression).
        task: One of the three.

    Raises:
        ValueError: For labels that are none of the task, and for classes that train lacks.
    """
    check = {"classification": _classes, "multilabel": _several, "regression": _numbers}[task]
    checked = {split: check(np.asarray(values)) for split, values in labels.items()}
    if task == "classification":
        width = int(max(values.max(initial=-1) for values in checked.values())) + 1
    else:
        widths = {values.shape[1] for values in checked.values()}
        if len(widths) > 1:
            raise ValueError(message("y", "as wide in every split", sorted(widths)))
        (width,) = widths
    if names is None:
        names = ("target",) if task == "regression" and width == 1 else tuple(map(str, range(width)))
    names = check_names(names)
    if len(names) < width or (task != "classification" and len(names) > width):
        raise ValueError(message("class_names", f"{width} names", names))
    if task != "regression":
        _check_presence(checked["train"], names, task)
    return checked, names


def check_names(names: Sequence[Any]) -> tuple[str, ...]:
    """Names as text in one line, each of them once."""
    texts = tuple(map(str, names))
    for name in texts:
        if not name.strip() or not name.isprintable():
            fix = "Reports and exported files hold one name in a line. Rename the class."
            raise ValueError(message("class name", "printable text in one line", name, fix))
    if len(set(texts)) < len(texts):
        twice = sorted({name for name in texts if texts.count(name) > 1})
        raise ValueError(message("class_names", "different names", twice))
    return texts


def _check_presence(train: np.ndarray, names: tuple[str, ...], task: str) -> None:
    several = task == "multilabel"
    counts = train.sum(0).astype(int) if several else np.bincount(train, minlength=len(names))
    if (len(names) < 2 and not several) or 0 in counts:
        empty = [name for name, count in zip(names, counts) if count == 0]
        fix = f"Classes without images: {empty}." if empty else "A classifier needs two classes."
        expected = "labels 0 ... classes - 1, each present in train"
        raise ValueError(message("y", expected, counts.tolist(), fix))


def _classes(values: np.ndarray) -> np.ndarray:
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer) or values.min(initial=0) < 0:
        fix = ""
        if values.ndim == 2:
            fix = (
                "Turn one-hot labels into integers with y.argmax(-1), or pass task='multilabel' if an image "
                "may have several labels, task='regression' if the numbers are to be predicted."
            )
        elif np.issubdtype(values.dtype, np.floating):
            fix = "Pass y.astype(int) for classes, task='regression' for numbers to predict."
        elif values.dtype.kind in "OUS":
            fix = "Number the names: names, y = numpy.unique(y, return_inverse=True); class_names=names."
        elif values.min(initial=0) < 0:
            fix = "Number the classes from 0, as with numpy.unique(y, return_inverse=True)[1]."
        expected = f"integers >= 0 of shape ({len(values)},)"
        raise ValueError(message("y", expected, f"{values.dtype} {values.shape}", fix))
    return values.astype(np.int64)


def _several(values: np.ndarray) -> np.ndarray:
    if values.ndim != 2 or values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        expected = "zeros and ones of shape [examples, classes] for several labels per image"
        raise ValueError(message("y", expected, f"{values.dtype} {values.shape}"))
    return values.astype(np.float32)


def _numbers(values: np.ndarray) -> np.ndarray:
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        expected = "finite numbers of shape [examples] or [examples, targets] for a regression"
        raise ValueError(message("y", expected, f"{values.dtype} {values.shape}"))
    return values.astype(np.float32)
