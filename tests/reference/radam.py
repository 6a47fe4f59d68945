"""RAdam in float64: arXiv:1908.03265, algorithm 2 (threshold 5, as the authors' code has it)."""

import numpy as np


def run(weights, gradient, steps, lr, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    w = [np.array(x, np.float64) for x in weights]
    m, v = ([np.zeros_like(x) for x in w] for _ in range(2))
    rho_inf = 2 / (1 - beta_2) - 1
    for t in range(1, steps + 1):
        g = gradient(t, w)
        rho = rho_inf - 2 * t * beta_2**t / (1 - beta_2**t)
        for i in range(len(w)):
            v[i] = beta_2 * v[i] + (1 - beta_2) * g[i] ** 2
            m[i] = beta_1 * m[i] + (1 - beta_1) * g[i]
            m_hat = m[i] / (1 - beta_1**t)
            if rho > 5:
                r = np.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
                w[i] = w[i] - lr * r * m_hat / (np.sqrt(v[i] / (1 - beta_2**t)) + epsilon)
            else:
                w[i] = w[i] - lr * m_hat
    return w
