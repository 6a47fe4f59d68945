"""What every optimizer and wrapper must do; each check takes a row of the catalogue."""

import contextlib
import inspect
import json

import keras
import numpy as np
import tensorflow as tf
from catalogue import SHAPES, Case

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


# State and config ------------------------------------------------------------------------------------


def check_config_is_complete(case: Case):
    """Keys are constructor arguments, values are plain, and the config makes an equal optimizer."""
    optimizer = case.make()
    optimizer.build(variables())
    config = optimizer.get_config()
    accepted = set()
    for kind in type(optimizer).__mro__:
        if not kind.__module__.startswith("keras"):
            accepted |= set(inspect.signature(kind.__init__).parameters)
    assert set(config) <= accepted | {"name"}, set(config) - accepted
    own = set(inspect.signature(type(optimizer).__init__).parameters) - {"self", "base_options"}
    assert own <= set(config), own - set(config)
    again = type(optimizer).from_config(json.loads(json.dumps(config)))
    again.build(variables())
    assert json.dumps(again.get_config()) == json.dumps(config)


def check_resumes_bit_for_bit(case: Case):
    """n steps, save, load into a fresh optimizer, n steps: equal to 2n steps in every bit."""
    straight, resumed, grads = variables(), variables(), gradients()
    optimizer = case.make()
    for t in range(1, 11):
        apply(optimizer, straight, grads[t])
    before = case.make()
    for t in range(1, 6):
        apply(before, resumed, grads[t])
    store = {}
    before.save_own_variables(store)
    after = type(before).from_config(before.get_config())
    after.build(resumed)
    after.load_own_variables({key: np.array(value) for key, value in store.items()})
    for t in range(6, 11):
        apply(after, resumed, grads[t])
    for x, y in zip(values(straight), values(resumed), strict=True):
        np.testing.assert_array_equal(x, y)


def check_loads_a_state_saved_before_the_first_update(case: Case):
    """What `load_model` of a model that was compiled but never trained does."""
    store = {}
    case.make().save_own_variables(store)
    optimizer = case.make()
    optimizer.build(variables())
    before = values(optimizer.variables)
    optimizer.load_own_variables(store)
    for x, y in zip(before, values(optimizer.variables), strict=True):
        np.testing.assert_array_equal(x, y)


def check_state_is_as_documented(case: Case):
    if case.slots is None:
        return
    optimizer, weights = case.make(), variables(shapes=[(4, 4), (5, 5)])
    optimizer.build(weights)
    slots = [v for v in optimizer.variables if tuple(v.shape) in ((4, 4), (5, 5))]
    assert len(slots) == case.slots * len(weights)


def check_refuses_a_state_that_does_not_fit(case: Case):
    optimizer = case.make()
    optimizer.build(variables())
    store = {}
    optimizer.save_own_variables(store)
    fewer = {str(i): store[str(i)] for i in range(len(store) - 1)}
    for bad in (fewer, store | {str(len(store) - 1): np.zeros((7, 7))}):
        try:
            optimizer.load_own_variables(bad)
        except ValueError as error:
            assert "saved state" in str(error)
        else:
            raise AssertionError("accepted a state that does not fit")


# Arithmetic -------------------------------------------------------------------------------------------


def check_half_precision_variables_use_float32_arithmetic(case: Case):
    """Each step equals the float32 step from the same start, rounded; the state is float32."""
    for dtype, rounding in (("float16", 2e-3), ("bfloat16", 1e-2)):
        half, grads = variables(dtype), gradients()
        optimizer = case.make()
        optimizer.build(half)
        for t in range(1, 4):
            full = [keras.Variable(tf.cast(w, "float32"), dtype="float32", name=w.name) for w in half]
            twin = case.make()
            twin.build(full)
            twin.load_own_variables({str(i): v.numpy() for i, v in enumerate(optimizer.variables)})
            twin.apply([tf.cast(tf.cast(g, dtype), "float32") for g in grads[t]], full)
            apply(optimizer, half, grads[t])
            close(half, full, rounding)
        if not case.around_keras:
            assert {v.dtype for v in optimizer.variables} <= {"float32", "int64"}


def check_gradients_of_another_type_are_cast(case: Case):
    """Numbers, lists, NumPy arrays, integers and other float types: a kernel would abort the process."""
    rows, whole = tf.constant([0, 2, 1], tf.int64), tf.constant([3, 2], tf.int64)
    for dtype, other in (("float32", "float64"), ("float64", "float32"), ("float32", "bfloat16")):
        plain, cast = (variables(dtype, shapes=((), (3,), (3, 2), (3, 2), (4, 4))) for _ in range(2))
        a, b = case.make(), case.make()
        grads = [tf.fill(w.shape, tf.constant(0.5, w.dtype)) for w in plain]
        mixed = [
            0.5,
            [0.5] * 3,
            np.full((3, 2), 0.5, other if other != "bfloat16" else "float16"),
            tf.IndexedSlices(tf.fill((3, 2), tf.constant(0.5, other)), rows, whole),
            tf.fill((4, 4), tf.constant(0.5, other)),
        ]
        grads[3] = tf.IndexedSlices(grads[3], rows, whole)
        for _ in range(3):
            a.apply(grads, plain)
            b.apply(mixed, cast)
        close(cast, plain, 0.0)


def check_duplicate_rows_equal_the_dense_gradient(case: Case):
    """Sparse gradients with a row mentioned twice, all rows touched, equal their dense sum."""
    rows = tf.constant([2, 0, 2, 1, 3], tf.int64)
    slices = [tf.random.stateless_normal((5, 3), (t, 0)) for t in range(3)]
    dense, sparse = variables(shapes=[(4, 3)]), variables(shapes=[(4, 3)])
    a, b = case.make(), case.make()
    for part in slices:
        gradient = tf.IndexedSlices(part, rows, tf.constant([4, 3], tf.int64))
        a.apply([tf.math.unsorted_segment_sum(part, rows, 4)], dense)
        b.apply([gradient], sparse)
    close(dense, sparse, 1e-6)


# Graphs -----------------------------------------------------------------------------------------------


def check_traces_once(case: Case):
    """Three calls and a new learning rate need one trace, and the rate takes effect."""
    optimizer, weights, grads = case.make(), variables(), gradients()
    traces = []

    @tf.function
    def step(g):
        traces.append(1)
        apply(optimizer, weights, g)

    for t in range(1, 4):
        step([tf.constant(g, tf.float32) for g in grads[t]])
    assert len(traces) <= 2  # TensorFlow traces a function that creates variables twice
    count = len(traces)
    optimizer.learning_rate = 0.0
    before = values(weights)
    for t in range(4, 7):
        step([tf.constant(g, tf.float32) for g in grads[t]])
    assert len(traces) == count
    if case.stops_at_rate_0:
        close(weights, before, 1e-7)


def check_steps_without_data_do_nothing(case: Case):
    """A step whose gradients fail, as at the end of a dataset of unknown length, changes nothing."""
    optimizer, weights = case.make(), variables()
    optimizer.build(weights)
    source = iter(tf.data.Dataset.from_tensors(gradients()[1:2][0][0]).filter(lambda x: x > 1e9))

    @tf.function
    def step():
        missing = tf.cast(next(source), tf.float32)
        apply(optimizer, weights, [tf.ones(w.shape) * missing for w in weights])

    before = values(weights) + values(optimizer.variables)
    with contextlib.suppress(tf.errors.OutOfRangeError):
        step()
    close(values(weights) + values(optimizer.variables), before, 0.0)


# Wiring -----------------------------------------------------------------------------------------------


def check_constraints_hold(case: Case):
    weights = [keras.Variable([0.015, 2.0, 1.0], name="v")]
    weights[0].constraint = keras.constraints.NonNeg()
    optimizer = case.make()
    for _ in range(8):
        optimizer.apply([tf.constant([50.0, 1.0, -1.0])], weights)
        assert weights[0].numpy().min() >= 0


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


def check_bad_gradients_are_refused(case: Case):
    """None only, a wrong shape, an unknown variable: an error, and nothing has changed."""
    optimizer, weights = case.make(), variables(shapes=[(3,), (2, 2)])
    optimizer.build(weights)
    stranger = keras.Variable([1.0])
    bad = [
        ([None, None], weights),
        ([tf.ones(3), tf.ones((2, 3))], weights),
        ([tf.ones(1)], [stranger]),
    ]
    before = values(weights) + values(optimizer.variables)
    for grads, targets in bad:
        try:
            optimizer.apply(grads, targets)
        except ValueError:
            pass
        else:
            raise AssertionError("accepted bad gradients")
    close(values(weights) + values(optimizer.variables), before, 0.0)


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]
