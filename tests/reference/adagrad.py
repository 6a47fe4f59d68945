"""Adagrad in float64: Duchi et al., JMLR 2011 (figure 1, diagonal), with Keras's epsilon."""

import numpy as np


def run(weights, gradient, steps, lr, initial=0.1, epsilon=1e-7):
    w = [np.array(x, np.float64) for x in weights]
    total = [np.full_like(x, initial) for x in w]
    for t in range(1, steps + 1):
        g = gradient(t, w)
        for i in range(len(w)):
            total[i] = total[i] + g[i] ** 2
            w[i] = w[i] - lr * g[i] / np.sqrt(total[i] + epsilon)
    return w
