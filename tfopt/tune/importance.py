"""How much of the differences between trials each setting explains."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_BINS = 4  # of a numeric setting; few, as trials are few
_SHUFFLES = 200


def importance(values: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> dict[str, float]:
    """The share of the variance of the scores between the groups of one setting, chance taken off.

    Numbers are cut into quarters of equal count. Grouping at random explains something too, the more
    groups the more: the mean of that is subtracted, so a setting that does not matter is near 0. Settings
    that work only together are not seen.

        share_k = (between_k - chance_k) / (total - chance_k), at least 0

    Args:
        values: Setting -> value of each trial.
        scores: The score of each trial.

    Returns:
        Setting -> share in [0, 1], the largest first; empty for fewer than four trials.
    """
    y = np.asarray(scores, "float64")
    if len(y) < 4 or not y.std():
        return {}
    generator = np.random.default_rng(0)
    shuffled = [generator.permutation(y) for _ in range(_SHUFFLES)]
    shares = {}
    for name in values[0]:
        groups = _groups([one.get(name) for one in values])
        chance = float(np.mean([_between(groups, other) for other in shuffled]))
        share = (_between(groups, y) - chance) / (1 - chance) if chance < 1 else 0.0
        shares[name] = max(0.0, share)
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _groups(column: Sequence[Any]) -> np.ndarray:
    """The number of each trial's group."""
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in column)
    if numeric and len(set(column)) > _BINS:
        edges = np.quantile(column, np.linspace(0, 1, _BINS + 1)[1:-1])
        return np.asarray(np.searchsorted(edges, column))
    texts = [str(value) for value in column]
    return np.array([sorted(set(texts)).index(text) for text in texts])


def _between(groups: np.ndarray, scores: np.ndarray) -> float:
    """Share of the variance that lies between groups."""
    means = np.zeros(len(scores))
    for group in set(groups.tolist()):
        means[groups == group] = scores[groups == group].mean()
    return float(means.var() / scores.var())
