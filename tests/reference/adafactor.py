"""Adafactor in float64: arXiv:1804.04235, algorithms 4 and 5, the second moment written out; momentum."""

import numpy as np


def rms(x):
    return np.sqrt(np.mean(x**2))


def run(weights, gradient, steps, lr, momentum=0.0, weight_decay=0.0, epsilon_1=1e-30, epsilon_2=1e-3):
    w = [np.array(x, np.float64) for x in weights]
    r, c, v, m = ([0.0 for _ in w] for _ in range(4))
    for t in range(1, steps + 1):
        g = gradient(t, w)
        beta = 1 - t**-0.8
        for i in range(len(w)):
            w[i] = w[i] - lr * weight_decay * w[i]
            square = g[i] ** 2 + epsilon_1
            if w[i].ndim < 2:
                v[i] = beta * v[i] + (1 - beta) * square
            else:
                r[i] = beta * r[i] + (1 - beta) * square.mean(-1)
                c[i] = beta * c[i] + (1 - beta) * square.mean(-2)
                v[i] = np.einsum("...i,...j->...ij", r[i], c[i]) / r[i].mean(-1)[..., None, None]
            u = g[i] / np.sqrt(v[i])
            u = u / max(1.0, rms(u))
            m[i] = momentum * m[i] + (1 - momentum) * u
            w[i] = w[i] - min(lr, t**-0.5) * max(epsilon_2, rms(w[i])) * m[i]
    return w
