"""Reproducible stratified splits: every class is divided in the same proportions."""

from collections.abc import Mapping, Sequence

import numpy as np

_BINS = 10  # of a regression's first target
_IN_BIN = 10  # examples at least


def strata(labels: np.ndarray) -> np.ndarray:
    """A group for each example, int64 [examples], for `stratified_split`.

    Classes are their own groups. Of several labels (zeros and ones), the rarest that an example has, so
    that rare labels reach every split. Of numbers, tenths of the range of the first target's ranks.

    Args:
        labels: Integers [examples]; zeros and ones [examples, classes]; or float [examples, targets].
    """
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
        return labels
    if np.isin(labels, (0, 1)).all():
        counts = np.where(labels == 1, labels.sum(0), np.inf)
        return np.where(labels.any(1), counts.argmin(1), labels.shape[1])
    first = labels.reshape(len(labels), -1)[:, 0]
    bins = min(max(len(first) // _IN_BIN, 1), _BINS)
    ranks = np.argsort(np.argsort(first, kind="stable"), kind="stable")
    return ranks * bins // len(first)


def stratified_split(
    labels: Sequence[int] | np.ndarray, fractions: Mapping[str, float], seed: int
) -> dict[str, np.ndarray]:
    """Divides the examples of every class among "train" and the named splits.

    A class gives round(fraction * size) examples to a split, at least one where the class has one to
    spare after leaving one for training. The result depends on the labels, their order and the seed.

    Args:
        labels: Class of each example, integers.
        fractions: Share of every class for each split other than "train"; their sum is below 1.
        seed: Integer.

    Returns:
        Sorted indices for "train" and for each name in `fractions`.
    """
    labels = np.asarray(labels)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ["train", *fractions]}
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = np.random.default_rng([seed, int(label)]).permutation(members)
        for name, fraction in fractions.items():
            wanted = max(round(fraction * np.count_nonzero(labels == label)), 1 if fraction else 0)
            taken = min(wanted, len(members) - 1)
            parts[name].append(members[:taken])
            members = members[taken:]
        parts["train"].append(members)
    return {name: np.sort(np.concatenate(indices)) for name, indices in parts.items()}
