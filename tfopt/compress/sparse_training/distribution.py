"""How many weights each layer keeps when all layers together have a given sparsity."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Shapes = Sequence[tuple[int, ...]]


def uniform(shapes: Shapes, sparsity: float) -> list[int]:
    """The same share everywhere but in the first layer, which stays dense: it is small and loses the most."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    dense = sizes[:1] if len(sizes) > 1 else []
    return dense + [_kept(size, 1.0 - sparsity) for size in sizes[len(dense) :]]


def erdos_renyi_kernel(shapes: Shapes, sparsity: float) -> list[int]:
    """Large layers sparser: density of a layer ~ (sum of its dimensions) / (product of its dimensions).

    Layers whose density would exceed 1 stay dense, and the others make up for them.

    References:
        Evci et al.: Rigging the Lottery. arXiv:1911.11134
    """
    sizes = np.array([np.prod(shape) for shape in shapes], float)
    shares = np.array([sum(shape) for shape in shapes]) / sizes
    dense: Any = np.zeros(len(sizes), bool)
    while True:
        budget = (1.0 - sparsity) * sizes.sum() - sizes[dense].sum()
        factor = budget / (shares * sizes)[~dense].sum()
        full = ~dense & (factor * shares > 1.0)
        if not full.any():
            break
        dense |= full & (shares == shares[~dense].max())
    densities = np.where(dense, 1.0, factor * shares)
    return [_kept(int(size), float(density)) for size, density in zip(sizes, densities)]


def _kept(size: int, density: float) -> int:
    return max(round(size * density), 1)


DISTRIBUTIONS: dict[str, Callable[[Shapes, float], list[int]]] = {
    "erk": erdos_renyi_kernel,
    "uniform": uniform,
}
