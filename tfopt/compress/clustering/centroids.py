"""The few values that stand for many weights: one-dimensional k-means on sorted values.

Sorting once makes every Lloyd iteration a search for the borders between clusters: its cost does not depend
on the number of weights.
"""

from collections.abc import Callable

import numpy as np

ITERATIONS = 100
SAMPLE = 65536  # k-means++ draws its starts from so many weights at most


def centroids_of(values: np.ndarray, clusters: int, initialization: str, seed: int = 0) -> np.ndarray:
    """At most `clusters` sorted values that minimize the squared distance to the given ones.

    Args:
        values: Numbers of any shape, at least one.
        clusters: >= 1. With no more distinct values than that, they are returned as they are.
        initialization: A key of `INITIALIZATIONS`.
        seed: Of the random draws.

    References:
        Lloyd: Least squares quantization in PCM. IEEE Transactions on Information Theory, 1982.
    """
    ordered = np.sort(values.reshape(-1).astype(np.float64))
    distinct = np.unique(ordered)
    if len(distinct) <= clusters:
        return distinct
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    centroids = INITIALIZATIONS[initialization](ordered, clusters, seed)
    for _ in range(ITERATIONS):
        borders = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        edges = np.concatenate([[0], borders, [len(ordered)]])
        counts = np.diff(edges)
        means = np.diff(sums[edges]) / np.maximum(counts, 1)
        renewed = np.where(counts > 0, means, centroids)
        if np.array_equal(renewed, centroids):
            break
        centroids = renewed
    return centroids


def nearest(values: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The nearest of the sorted centroids for each value, in the shape and dtype of the values."""
    indices = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values)
    return centroids[indices].astype(values.dtype)


def _linear(ordered: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Evenly spaced from the smallest to the largest value (Han et al., 2015, found it best)."""
    return np.linspace(ordered[0], ordered[-1], clusters)


def _kmeans_plus_plus(ordered: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Drawn from the values, each with a probability that grows with its distance from those before."""
    random = np.random.default_rng(seed)
    sample = random.choice(ordered, SAMPLE, replace=False) if len(ordered) > SAMPLE else ordered
    starts = [random.choice(sample)]
    distances = np.square(sample - starts[0])
    for _ in range(clusters - 1):
        starts.append(random.choice(sample, p=distances / distances.sum()))
        distances = np.minimum(distances, np.square(sample - starts[-1]))
        if not distances.any():
            break
    return np.sort(starts)


INITIALIZATIONS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "kmeans++": _kmeans_plus_plus,
    "linear": _linear,
}
