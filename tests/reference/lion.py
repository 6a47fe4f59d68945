"""Lion in float64: arXiv:2302.06675, program 1."""

import numpy as np


def run(weights, gradient, steps, lr, beta_1=0.9, beta_2=0.99, weight_decay=0.0):
    w = [np.array(x, np.float64) for x in weights]
    m = [np.zeros_like(x) for x in w]
    for t in range(1, steps + 1):
        g = gradient(t, w)
        for i in range(len(w)):
            update = np.sign(beta_1 * m[i] + (1 - beta_1) * g[i])
            m[i] = beta_2 * m[i] + (1 - beta_2) * g[i]
            w[i] = w[i] - lr * (update + weight_decay * w[i])
    return w
