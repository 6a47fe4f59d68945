"""Lookahead in float64, from arXiv:1907.08610 (algorithm 1), around a reference of the inner optimizer."""

import numpy as np


def run(weights, gradient, steps, inner, sync_period, slow_step):
    """`inner(weights, gradient, n)` must be a reference whose state starts at step 1."""
    slow = [np.array(x, np.float64) for x in weights]
    offset = [np.zeros_like(x) for x in slow]

    # The inner optimizer runs without interruption; the jumps back are added to its weights.
    def jumping_gradient(t, w):
        if t > 1 and (t - 1) % sync_period == 0:
            for i in range(len(w)):
                actual = w[i] + offset[i]
                slow[i] = slow[i] + slow_step * (actual - slow[i])
                offset[i] = slow[i] - w[i]
        return gradient(t, [x + o for x, o in zip(w, offset)])

    w = inner(weights, jumping_gradient, steps)
    actual = [x + o for x, o in zip(w, offset)]
    if steps % sync_period == 0:
        return [s + slow_step * (a - s) for s, a in zip(slow, actual)]
    return actual
