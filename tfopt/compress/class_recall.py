"""What each class loses between two models: accuracy alone hides whose images are no longer recognized."""

import math
from collections.abc import Sequence

import numpy as np

LARGEST_LOSS = 0.05  # of a class's recall, above which it is warned of
_NAMED = 5  # classes in a warning

Recalls = tuple[float | None, ...]


def recalls(true: np.ndarray, predicted: np.ndarray, classes: int) -> Recalls:
    """The share of each class's samples that were recognized; None for a class without samples.

    Args:
        true: Integer classes, of any shape.
        predicted: The same shape.
        classes: Number of classes.
    """
    true, predicted = true.reshape(-1), predicted.reshape(-1)
    support = np.bincount(true, minlength=classes)
    right = np.bincount(true[true == predicted], minlength=classes)
    return tuple(float(hits / count) if count else None for hits, count in zip(right, support))


def balanced(values: Recalls) -> float:
    """Balanced accuracy: the mean recall of the classes that have samples; NaN if none has."""
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else math.nan


def loss_text(
    before: tuple[str, Recalls],
    after: tuple[str, Recalls],
    support: Sequence[int],
    names: Sequence[str] = (),
) -> str:
    """A warning that names the classes that lose more than `LARGEST_LOSS`, the worst first; "" for none.

    Args:
        before: Name and recalls of the reference.
        after: Name and recalls of the model that was made from it.
        support: Number of samples of each class.
        names: Of the classes; by default they are called by number.
    """
    lost = []
    for number, (old, new) in enumerate(zip(before[1], after[1])):
        if old is not None and new is not None and old - new > LARGEST_LOSS + 1e-9:
            name = repr(names[number]) if names else f"class {number}"
            count = support[number]
            counted = f"{round(new * count)} instead of {round(old * count)} of {count}"
            lost.append((new - old, number, f"{name} {counted} ({new:.0%} instead of {old:.0%})"))
    if not lost:
        return ""
    texts = [text for *_, text in sorted(lost)]
    more = f", and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    share = f"more than {LARGEST_LOSS:.0%}"
    one = len(texts) == 1
    who = (
        f"1 class loses {share} of its images"
        if one
        else f"{len(texts)} classes lose {share} of their images"
    )
    return f"{who} from {before[0]} to {after[0]}: {', '.join(texts[:_NAMED])}{more}."
