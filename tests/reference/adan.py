"""Adan in float64: arXiv:2208.06677, algorithm 1, whose betas are one minus these, with bias correction."""

import numpy as np


def run(weights, gradient, steps, lr, beta_1=0.98, beta_2=0.92, epsilon=1e-8, beta_3=0.99, weight_decay=0.0):
    w = [np.array(x, np.float64) for x in weights]
    m, v, n = ([np.zeros_like(x) for x in w] for _ in range(3))
    previous = None
    for t in range(1, steps + 1):
        g = [np.array(x) for x in gradient(t, w)]
        previous = previous or g
        for i in range(len(w)):
            d = g[i] - previous[i]
            m[i] = beta_1 * m[i] + (1 - beta_1) * g[i]
            v[i] = beta_2 * v[i] + (1 - beta_2) * d
            n[i] = beta_3 * n[i] + (1 - beta_3) * (g[i] + beta_2 * d) ** 2
            eta = lr / (np.sqrt(n[i] / (1 - beta_3**t)) + epsilon)
            ahead = m[i] / (1 - beta_1**t) + beta_2 * v[i] / (1 - beta_2**t)
            w[i] = (w[i] - eta * ahead) / (1 + lr * weight_decay)
        previous = g
    return w
