"""Adam, AMSGrad and AdamW in float64, from arXiv:1412.6980 (section 2), 1904.09237 and 1711.05101."""

import numpy as np


def run(
    weights, gradient, steps, lr, beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False, weight_decay=0.0
):
    w = [np.array(x, np.float64) for x in weights]
    m, v, largest = ([np.zeros_like(x) for x in w] for _ in range(3))
    for t in range(1, steps + 1):
        g = gradient(t, w)
        for i in range(len(w)):
            w[i] = w[i] - lr * weight_decay * w[i]
            m[i] = beta_1 * m[i] + (1 - beta_1) * g[i]
            v[i] = beta_2 * v[i] + (1 - beta_2) * g[i] ** 2
            largest[i] = np.maximum(largest[i], v[i])
            alpha = lr * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
            w[i] = w[i] - alpha * m[i] / (np.sqrt(largest[i] if amsgrad else v[i]) + epsilon)
    return w
