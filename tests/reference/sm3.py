"""SM3-II in float64: arXiv:1901.11150, algorithm 2, element by element as written there; with momentum."""

import numpy as np


def run(weights, gradient, steps, lr, momentum=0.9, weight_decay=0.0):
    w = [np.array(x, np.float64) for x in weights]
    m = [np.zeros_like(x) for x in w]
    mu = [{} for _ in w]  # of each set of the cover, by (axis, position); of each element in a vector
    for t in range(1, steps + 1):
        g = gradient(t, w)
        for i in range(len(w)):
            new, direction = {}, np.zeros_like(w[i])
            for place in np.ndindex(w[i].shape):
                cover = list(enumerate(place)) if w[i].ndim else [(0, 0)]
                nu = min(mu[i].get(part, 0.0) for part in cover) + g[i][place] ** 2
                direction[place] = g[i][place] / np.sqrt(nu) if nu > 0 else 0.0
                for part in cover:
                    new[part] = max(new.get(part, 0.0), nu)
            mu[i] = new
            m[i] = momentum * m[i] + (1 - momentum) * direction
            w[i] = w[i] - lr * weight_decay * w[i] - lr * m[i]
    return w
