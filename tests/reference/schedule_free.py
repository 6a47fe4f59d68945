"""Schedule-Free in float64: arXiv:2405.15682, algorithm 1, in x, y and z as the paper writes it."""

import numpy as np


def run(
    weights,
    gradient,
    steps,
    lr,
    beta=0.9,
    beta_2=None,
    epsilon=1e-8,
    warmup=0,
    weight_decay=0.0,
    averages=False,
):
    """SGD if `beta_2` is None, else AdamW. Returns y, where it trains, or the averages x."""
    x = [np.array(a, np.float64) for a in weights]
    y, z = [a.copy() for a in x], [a.copy() for a in x]
    v = [np.zeros_like(a) for a in x]
    largest, total = 0.0, 0.0
    for t in range(1, steps + 1):
        g = gradient(t, y)
        rate = lr * (min(t / warmup, 1) if warmup else 1)
        largest = max(largest, rate)
        total += largest**2
        c = largest**2 / total
        for i in range(len(x)):
            direction = np.asarray(g[i])
            if beta_2 is not None:
                v[i] = beta_2 * v[i] + (1 - beta_2) * direction**2
                direction = direction / (np.sqrt(v[i] / (1 - beta_2**t)) + epsilon)
            direction = direction + weight_decay * y[i]
            z[i] = z[i] - rate * direction
            x[i] = (1 - c) * x[i] + c * z[i]
            y[i] = (1 - beta) * z[i] + beta * x[i]
    return x if averages else y
