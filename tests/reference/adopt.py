"""ADOPT in float64: arXiv:2411.02853, algorithm 2 with clipping at t**0.25; the first call is t = 0."""

import numpy as np


def run(weights, gradient, steps, lr, beta_1=0.9, beta_2=0.9999, epsilon=1e-6):
    w = [np.array(x, np.float64) for x in weights]
    v = [x**2 for x in gradient(1, w)]
    m = [np.zeros_like(x) for x in w]
    for t in range(1, steps):
        g = gradient(t + 1, w)
        for i in range(len(w)):
            u = np.clip(g[i] / np.maximum(np.sqrt(v[i]), epsilon), -(t**0.25), t**0.25)
            m[i] = beta_1 * m[i] + (1 - beta_1) * u
            w[i] = w[i] - lr * m[i]
            v[i] = beta_2 * v[i] + (1 - beta_2) * g[i] ** 2
    return w
