"""Yogi in float64: Zaheer et al., NeurIPS 2018, algorithm 2, with the bias correction of their code."""

import numpy as np


def run(weights, gradient, steps, lr, beta_1=0.9, beta_2=0.999, epsilon=1e-3, initial=1e-6):
    w = [np.array(x, np.float64) for x in weights]
    m, v = ([np.full_like(x, initial) for x in w] for _ in range(2))
    for t in range(1, steps + 1):
        g = gradient(t, w)
        for i in range(len(w)):
            m[i] = beta_1 * m[i] + (1 - beta_1) * g[i]
            v[i] = v[i] - (1 - beta_2) * np.sign(v[i] - g[i] ** 2) * g[i] ** 2
            m_hat, v_hat = m[i] / (1 - beta_1**t), v[i] / (1 - beta_2**t)
            w[i] = w[i] - lr * m_hat / (np.sqrt(v_hat) + epsilon)
    return w
