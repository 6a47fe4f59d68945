"""SGD with momentum in float64, from Sutskever et al., ICML 2013 (equations 1 to 4, Keras's form)."""

import numpy as np


def run(weights, gradient, steps, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    w = [np.array(x, np.float64) for x in weights]
    velocity = [np.zeros_like(x) for x in w]
    for t in range(1, steps + 1):
        g = gradient(t, w)
        for i in range(len(w)):
            w[i] = w[i] - lr * weight_decay * w[i]
            velocity[i] = momentum * velocity[i] - lr * g[i]
            w[i] = w[i] + (momentum * velocity[i] - lr * g[i] if nesterov else velocity[i])
    return w
