"""RMSprop in float64: Tieleman and Hinton 2012; centered: arXiv:1308.0850 (equations 38 to 41)."""

import numpy as np


def run(weights, gradient, steps, lr, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False):
    w = [np.array(x, np.float64) for x in weights]
    v, b, mean = ([np.zeros_like(x) for x in w] for _ in range(3))
    for t in range(1, steps + 1):
        g = gradient(t, w)
        for i in range(len(w)):
            v[i] = rho * v[i] + (1 - rho) * g[i] ** 2
            mean[i] = rho * mean[i] + (1 - rho) * g[i]
            variance = v[i] - mean[i] ** 2 if centered else v[i]
            b[i] = momentum * b[i] + lr * g[i] / np.sqrt(variance + epsilon)
            w[i] = w[i] - b[i]
    return w
