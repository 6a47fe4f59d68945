"""SOAP in float64: arXiv:2409.11321, algorithm 3, kernels as matrices; the first call only measures."""

import numpy as np


def descending(matrix):
    values, vectors = np.linalg.eigh(matrix)
    return vectors[:, np.argsort(-values, kind="stable")]


def run(weights, gradient, steps, lr, beta_1=0.95, beta_2=0.95, epsilon=1e-8, weight_decay=0.0, period=10):
    w = [np.array(x, np.float64) for x in weights]
    state = [None] * len(w)
    for t in range(1, steps + 1):
        for i, g in enumerate(gradient(t, w)):
            g = np.asarray(g)
            flat = g.reshape(-1, g.shape[-1]) if g.ndim > 1 else g.reshape(-1, 1)
            matrix = g.ndim > 1
            if state[i] is None:
                left = (1 - beta_2) * flat @ flat.T
                right = (1 - beta_2) * flat.T @ flat
                bases = (descending(left), descending(right)) if matrix else (np.eye(len(flat)), np.eye(1))
                w[i] = w[i] - lr * weight_decay * 0
                state[i] = [np.zeros_like(flat), np.zeros_like(flat), left, right, *bases]
                continue
            m, v, left, right, ql, qr = state[i]
            k = t - 1
            w[i] = w[i] - lr * weight_decay * w[i]
            m = beta_1 * m + (1 - beta_1) * flat
            v = beta_2 * v + (1 - beta_2) * (ql.T @ flat @ qr) ** 2
            alpha = lr * np.sqrt(1 - beta_2**k) / (1 - beta_1**k)
            step = ql @ ((ql.T @ m @ qr) / (np.sqrt(v) + epsilon)) @ qr.T
            w[i] = w[i] - alpha * step.reshape(w[i].shape)
            left = beta_2 * left + (1 - beta_2) * flat @ flat.T
            right = beta_2 * right + (1 - beta_2) * flat.T @ flat
            if matrix and k % period == 0:
                order = np.argsort(-np.diag(ql.T @ left @ ql), kind="stable")
                ql, v = np.linalg.qr(left @ ql[:, order])[0], v[order]
                order = np.argsort(-np.diag(qr.T @ right @ qr), kind="stable")
                qr, v = np.linalg.qr(right @ qr[:, order])[0], v[:, order]
            state[i] = [m, v, left, right, ql, qr]
    return w
