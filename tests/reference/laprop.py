"""LaProp in float64: arXiv:2002.04839, algorithm 1, where the betas are mu and nu."""

import numpy as np


def run(weights, gradient, steps, lr, beta_1=0.9, beta_2=0.999, epsilon=1e-15, weight_decay=0.0):
    w = [np.array(x, np.float64) for x in weights]
    m, n = ([np.zeros_like(x) for x in w] for _ in range(2))
    for t in range(1, steps + 1):
        g = gradient(t, w)
        for i in range(len(w)):
            n[i] = beta_2 * n[i] + (1 - beta_2) * g[i] ** 2
            denominator = np.sqrt(n[i] / (1 - beta_2**t)) + epsilon
            m[i] = beta_1 * m[i] + (1 - beta_1) * g[i] / denominator
            w[i] = w[i] - lr * weight_decay * w[i] - lr * m[i] / (1 - beta_1**t)
    return w
