"""AdEMAMix in float64: arXiv:2409.03137, algorithm 1 and the schedulers of appendix A."""

import numpy as np


def run(
    weights, gradient, steps, lr, beta_1=0.9, beta_2=0.999, epsilon=1e-8, beta_3=0.9999, alpha=5.0, warmup=0
):
    def f(beta):
        return np.log(0.5) / np.log(beta) - 1

    def inverse(half_life):
        return 0.5 ** (1 / (half_life + 1))

    w = [np.array(x, np.float64) for x in weights]
    fast, slow, v = ([np.zeros_like(x) for x in w] for _ in range(3))
    for t in range(1, steps + 1):
        g = gradient(t, w)
        share = min(t / warmup, 1) if warmup else 1
        beta_t = inverse((1 - share) * f(beta_1) + share * f(beta_3))
        for i in range(len(w)):
            fast[i] = beta_1 * fast[i] + (1 - beta_1) * g[i]
            slow[i] = beta_t * slow[i] + (1 - beta_t) * g[i]
            v[i] = beta_2 * v[i] + (1 - beta_2) * g[i] ** 2
            direction = fast[i] / (1 - beta_1**t) + share * alpha * slow[i]
            w[i] = w[i] - lr * direction / (np.sqrt(v[i] / (1 - beta_2**t)) + epsilon)
    return w
