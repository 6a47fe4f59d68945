"""Muon in float64: Jordan et al. 2024 with the update scale of arXiv:2502.16982; AdamW for vectors."""

import numpy as np


def orthogonal(x, steps=5, epsilon=1e-7):
    a, b, c = 3.4445, -4.7750, 2.0315
    x = x / (np.linalg.norm(x) + epsilon)
    if x.shape[0] > x.shape[1]:
        return orthogonal_wide(x.T, a, b, c, steps).T
    return orthogonal_wide(x, a, b, c, steps)


def orthogonal_wide(x, a, b, c, steps):
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def run(weights, gradient, steps, lr, momentum=0.95, rms=0.2, beta_1=0.9, beta_2=0.95, epsilon=1e-7):
    w = [np.array(x, np.float64) for x in weights]
    m, v = ([np.zeros_like(x) for x in w] for _ in range(2))
    for t in range(1, steps + 1):
        g = gradient(t, w)
        for i in range(len(w)):
            if w[i].ndim < 2:
                m[i] = beta_1 * m[i] + (1 - beta_1) * g[i]
                v[i] = beta_2 * v[i] + (1 - beta_2) * np.square(g[i])
                alpha = lr * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
                w[i] = w[i] - alpha * m[i] / (np.sqrt(v[i]) + epsilon)
                continue
            m[i] = momentum * m[i] + g[i]
            flat = (g[i] + momentum * m[i]).reshape(-1, w[i].shape[-1])
            scale = rms * np.sqrt(max(flat.shape))
            w[i] = w[i] - lr * scale * orthogonal(flat).reshape(w[i].shape)
    return w
