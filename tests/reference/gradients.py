"""References of the wrappers that change gradients or steps, around a reference of the inner optimizer."""

import numpy as np


def axes(x):
    if x.ndim == 4 and x.shape[3] == 1 and x.shape[2] > 1:
        return (0, 1)
    return tuple(range(x.ndim - 1))


def centralized(weights, gradient, steps, inner):
    """arXiv:2004.01461, equation 1, for Keras kernels."""

    def change(t, w):
        parts = [np.asarray(g) for g in gradient(t, w)]
        return [g - g.mean(axes(g), keepdims=True) if g.ndim > 1 else g for g in parts]

    return inner(weights, change, steps)


def adaptively_clipped(weights, gradient, steps, inner, factor=0.01, epsilon=1e-3):
    """arXiv:2102.06171, equation 3, with whole-vector norms for vectors as in the authors' code."""

    def norm(x):
        return np.sqrt(np.sum(np.square(x), axes(x) if x.ndim > 1 else None, keepdims=x.ndim > 1))

    def change(t, w):
        result = []
        for g, x in zip(map(np.asarray, gradient(t, w)), w):
            limit = factor * np.maximum(norm(x), epsilon)
            result.append(np.where(norm(g) > limit, limit / np.maximum(norm(g), 1e-300), 1) * g)
        return result

    return inner(weights, change, steps)


def cautious_momentum(weights, gradient, steps, lr, momentum=0.9):
    """arXiv:2411.16085, algorithm 1, with SGD and momentum as the base."""
    w = [np.array(x, np.float64) for x in weights]
    velocity = [np.zeros_like(x) for x in w]
    for t in range(1, steps + 1):
        g = gradient(t, w)
        for i in range(len(w)):
            velocity[i] = momentum * velocity[i] - lr * np.asarray(g[i])
            mask = (-velocity[i] * g[i] > 0).astype(np.float64)
            w[i] = w[i] + velocity[i] * mask / max(mask.mean(), 1e-3)
    return w
