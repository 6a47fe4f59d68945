"""StableAdamW in float64: arXiv:2304.13013, algorithm 2."""

import numpy as np


def run(weights, gradient, steps, lr, beta_1=0.9, beta_2=0.99, epsilon=1e-8, weight_decay=0.0):
    w = [np.array(x, np.float64) for x in weights]
    v, u = ([np.zeros_like(x) for x in w] for _ in range(2))
    for t in range(1, steps + 1):
        g = gradient(t, w)
        b1 = beta_1 * (1 - beta_1 ** (t - 1)) / (1 - beta_1**t)
        b2 = beta_2 * (1 - beta_2 ** (t - 1)) / (1 - beta_2**t)
        for i in range(len(w)):
            v[i] = b1 * v[i] + (1 - b1) * g[i]
            u[i] = b2 * u[i] + (1 - b2) * g[i] ** 2
            rms = np.sqrt(np.mean(g[i] ** 2 / np.maximum(u[i], epsilon**2)))
            eta = lr / max(1, rms)
            w[i] = w[i] - eta * weight_decay * w[i] - eta * v[i] / (np.sqrt(u[i]) + epsilon)
    return w
