"""AdaBelief in float64: arXiv:2010.07468, algorithm 2."""

import numpy as np


def run(weights, gradient, steps, lr, beta_1=0.9, beta_2=0.999, epsilon=1e-16):
    w = [np.array(x, np.float64) for x in weights]
    m, s = ([np.zeros_like(x) for x in w] for _ in range(2))
    for t in range(1, steps + 1):
        g = gradient(t, w)
        for i in range(len(w)):
            m[i] = beta_1 * m[i] + (1 - beta_1) * g[i]
            s[i] = beta_2 * s[i] + (1 - beta_2) * (g[i] - m[i]) ** 2 + epsilon
            m_hat, s_hat = m[i] / (1 - beta_1**t), s[i] / (1 - beta_2**t)
            w[i] = w[i] - lr * m_hat / (np.sqrt(s_hat) + epsilon)
    return w
