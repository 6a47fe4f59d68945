"""What every optimizer and wrapper must do; each check takes a row of the catalogue.

Most checks are those that `tfopt.testing` offers to all; here are the ones that need the facts of a row.
"""

import functools

import keras
import numpy as np
import tensorflow as tf
from catalogue import SHAPES, Case

from tfopt import testing

STEPS = 20


def variables(dtype="float32", seed=0, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [keras.Variable(rng.normal(size=s), dtype=dtype, name=f"v{i}") for i, s in enumerate(shapes)]


def gradients(seed=0, shapes=SHAPES, steps=STEPS):
    """Gradients of different scales that also turn round, as 1-based steps."""
    rng = np.random.default_rng(seed + 100)
    scale = [10.0**i for i in range(-2, len(shapes) - 2)]
    return [None] + [[c * rng.normal(size=s) for c, s in zip(scale, shapes)] for _ in range(steps)]


def values(weights):
    return [tf.cast(weight, tf.float64).numpy() for weight in weights]


def apply(optimizer, weights, grads):
    optimizer.apply([tf.cast(g, w.dtype) for g, w in zip(grads, weights)], weights)


def close(actual, expected, tolerance, what=""):
    for index, (x, y) in enumerate(zip(values(actual), values(expected), strict=True)):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance, err_msg=f"{what} variable {index}")


# Mathematics ------------------------------------------------------------------------------------------


def check_equals_the_reference(case: Case):
    """20 steps of `apply` in float64, ranks 0 to 4, three seeds."""
    for seed in range(3):
        weights, grads = variables("float64", seed, case.shapes), gradients(seed, case.shapes)
        expected = case.reference(values(weights), lambda t, w, grads=grads: grads[t], STEPS)
        optimizer = case.make()
        for t in range(1, STEPS + 1):
            apply(optimizer, weights, grads[t])
        close(weights, expected, case.tolerance, f"seed {seed}")


def check_reduces_to_a_known_optimizer(case: Case):
    if case.reduces_to is None:
        return
    ours, known = variables(), variables()
    a, b = (make() for make in case.reduces_to)
    for grads in gradients()[1:]:
        apply(a, ours, grads)
        apply(b, known, grads)
    close(ours, known, 1e-6)


def check_shares_state_with_keras(case: Case):
    """State goes from Keras's own to ours and back, and both train on alike."""
    if case.twin is None:
        return
    grads = gradients()
    for first, second in ((case.make, case.twin), (case.twin, case.make)):
        weights = variables()
        a, b = first(), second()
        for t in range(1, 6):
            apply(a, weights, grads[t])
        other = [keras.Variable(weight, name=weight.name) for weight in weights]
        b.build(other)
        store = {}
        a.save_own_variables(store)
        b.load_own_variables(store)
        for t in range(6, 11):
            apply(a, weights, grads[t])
            apply(b, other, grads[t])
        close(weights, other, 2e-5)


# Facts -----------------------------------------------------------------------------------------------


def check_state_is_as_documented(case: Case):
    if case.slots is None:
        return
    optimizer, weights = case.make(), variables(shapes=[(4, 4), (5, 5)])
    optimizer.build(weights)
    slots = [v for v in optimizer.variables if tuple(v.shape) in ((4, 4), (5, 5))]
    assert len(slots) == case.slots * len(weights)


def check_bad_arguments_are_refused(case: Case):
    """Each declared bound, by the name of the argument; and the arguments that all have."""
    optimizer = case.make()
    kind = type(optimizer)
    base = {"clipnorm": [0.0], "weight_decay": [-1.0], "learning_rate": [-1.0, 1]}
    base = {} if case.wraps else base | {"ema_overwrite_frequency": [0, 1.5]}
    for name, bads in (base | case.bad).items():
        for bad in bads:
            config = optimizer.get_config() | {name: bad}
            try:
                kind.from_config(config)
            except (TypeError, ValueError) as error:
                assert f"`{name}`" in str(error) and f"{name}={bad!r}" in str(error), error
            else:
                raise AssertionError(f"{name}={bad!r} was accepted")


def _of_case(check):
    @functools.wraps(check)
    def check_case(case: Case):
        check(case.make)

    return check_case


OWN = [value for name, value in list(globals().items()) if name.startswith("check_")]
CHECKS = [*OWN, *map(_of_case, testing.CHECKS)]
