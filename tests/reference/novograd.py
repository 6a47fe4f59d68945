"""NovoGrad in float64: arXiv:1905.11286, algorithm 1."""

import numpy as np


def run(weights, gradient, steps, lr, beta_1=0.95, beta_2=0.98, epsilon=1e-8, weight_decay=0.0):
    w = [np.array(x, np.float64) for x in weights]
    m, v = [np.zeros_like(x) for x in w], [None] * len(w)
    for t in range(1, steps + 1):
        g = gradient(t, w)
        for i in range(len(w)):
            square = np.sum(np.square(g[i]))
            v[i] = square if v[i] is None else beta_2 * v[i] + (1 - beta_2) * square
            m[i] = beta_1 * m[i] + (g[i] / (np.sqrt(v[i]) + epsilon) + weight_decay * w[i])
            w[i] = w[i] - lr * m[i]
    return w
