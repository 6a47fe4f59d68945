"""LARS in float64: arXiv:1708.03888, algorithm 1; plain momentum for variables with fewer than 2 axes."""

import numpy as np


def run(weights, gradient, steps, lr, momentum=0.9, eta=0.001, weight_decay=0.0):
    w = [np.array(x, np.float64) for x in weights]
    v = [np.zeros_like(x) for x in w]
    for t in range(1, steps + 1):
        g = gradient(t, w)
        for i in range(len(w)):
            size, slope = np.linalg.norm(w[i].ravel()), np.linalg.norm(np.ravel(g[i]))
            local = eta * size / (slope + weight_decay * size) if w[i].ndim > 1 and size * slope else 1.0
            v[i] = momentum * v[i] + lr * local * (g[i] + weight_decay * w[i])
            w[i] = w[i] - v[i]
    return w
