"""MARS-AdamW in float64: arXiv:2411.10438, algorithm 2 with the last gradient; layers are clipped alone."""

import numpy as np


def run(weights, gradient, steps, lr, beta_1=0.95, beta_2=0.99, epsilon=1e-8, gamma=0.025, weight_decay=0.0):
    w = [np.array(x, np.float64) for x in weights]
    m, v = ([np.zeros_like(x) for x in w] for _ in range(2))
    last = None
    for t in range(1, steps + 1):
        g = [np.array(x) for x in gradient(t, w)]
        last = last or g
        for i in range(len(w)):
            c = g[i] + gamma * beta_1 / (1 - beta_1) * (g[i] - last[i])
            c = c / max(1.0, np.sqrt(np.sum(c**2)))
            m[i] = beta_1 * m[i] + (1 - beta_1) * c
            v[i] = beta_2 * v[i] + (1 - beta_2) * c**2
            adapted = m[i] / (1 - beta_1**t) / (np.sqrt(v[i] / (1 - beta_2**t)) + epsilon)
            w[i] = w[i] - lr * (adapted + weight_decay * w[i])
        last = g
    return w
