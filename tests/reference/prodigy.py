"""Prodigy in float64: arXiv:2306.06101, algorithm 4 with the authors' normalization by d0."""

import numpy as np


def run(weights, gradient, steps, lr=1.0, beta_1=0.9, beta_2=0.999, epsilon=1e-8, d0=1e-6, weight_decay=0.0):
    w = [np.array(x, np.float64) for x in weights]
    start = [x.copy() for x in w]
    m, v, s = ([np.zeros_like(x) for x in w] for _ in range(3))
    d, r, beta_3 = d0, 0.0, np.sqrt(beta_2)
    for t in range(1, steps + 1):
        g = gradient(t, w)
        rate = d * lr
        r = beta_3 * r + d / d0 * rate * sum(np.sum(a * (b - c)) for a, b, c in zip(g, start, w))
        for i in range(len(w)):
            m[i] = beta_1 * m[i] + (1 - beta_1) * d * g[i]
            v[i] = beta_2 * v[i] + (1 - beta_2) * d**2 * np.square(g[i])
            s[i] = beta_3 * s[i] + d / d0 * rate * np.asarray(g[i])
        following = max(d, r / sum(np.abs(x).sum() for x in s))
        for i in range(len(w)):
            w[i] = w[i] - rate * weight_decay * w[i]
            w[i] = w[i] - rate * m[i] / (np.sqrt(v[i]) + following * epsilon)
        d = following
    return w
