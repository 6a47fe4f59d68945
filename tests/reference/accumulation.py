"""Gradient accumulation in float64: the reference of the inner optimizer on mean gradients."""

import numpy as np


def run(weights, gradient, steps, inner, every):
    def mean_gradient(t, w):
        parts = [gradient((t - 1) * every + k, w) for k in range(1, every + 1)]
        return [np.mean(part, axis=0) for part in zip(*parts)]

    return inner(weights, mean_gradient, steps // every)
