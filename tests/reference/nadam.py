"""Nadam in float64: Dozat, ICLR 2016 workshop, algorithm 8 with the schedule of section 3."""

import numpy as np


def run(weights, gradient, steps, lr, beta_1=0.9, beta_2=0.999, epsilon=1e-7, decay=0.004):
    def mu(t):
        return beta_1 * (1 - 0.5 * 0.96 ** (t * decay))

    w = [np.array(x, np.float64) for x in weights]
    m, n = ([np.zeros_like(x) for x in w] for _ in range(2))
    product = 1.0
    for t in range(1, steps + 1):
        g = gradient(t, w)
        product = product * mu(t)
        for i in range(len(w)):
            m[i] = beta_1 * m[i] + (1 - beta_1) * g[i]
            n[i] = beta_2 * n[i] + (1 - beta_2) * g[i] ** 2
            g_hat = g[i] / (1 - product)
            m_hat = m[i] / (1 - product * mu(t + 1))
            n_hat = n[i] / (1 - beta_2**t)
            m_bar = (1 - mu(t)) * g_hat + mu(t + 1) * m_hat
            w[i] = w[i] - lr * m_bar / (np.sqrt(n_hat) + epsilon)
    return w
