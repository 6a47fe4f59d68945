"""LAMB in float64: arXiv:1904.00962, algorithm 2, phi the identity."""

import numpy as np


def run(weights, gradient, steps, lr, beta_1=0.9, beta_2=0.999, epsilon=1e-6, weight_decay=0.01):
    w = [np.array(x, np.float64) for x in weights]
    m, v = ([np.zeros_like(x) for x in w] for _ in range(2))
    for t in range(1, steps + 1):
        g = gradient(t, w)
        for i in range(len(w)):
            m[i] = beta_1 * m[i] + (1 - beta_1) * g[i]
            v[i] = beta_2 * v[i] + (1 - beta_2) * g[i] ** 2
            r = m[i] / (1 - beta_1**t) / (np.sqrt(v[i] / (1 - beta_2**t)) + epsilon) + weight_decay * w[i]
            size, length = np.linalg.norm(w[i].ravel()), np.linalg.norm(r.ravel())
            w[i] = w[i] - lr * (size / length if size * length else 1.0) * r
    return w
