"""Checks of single updates: types, sparse and missing gradients, constraints."""

import functools

import keras
import numpy as np
import tensorflow as tf

from tfopt.optimizers import RuleOptimizer
from tfopt.optimizers._wrapper import OptimizerWrapper, chain_of
from tfopt.testing._training import (
    FULL_RANK,
    Maker,
    assert_close,
    gradients,
    require,
    traced,
    updates_after,
    values,
    variables,
)


def check_half_precision_variables_use_float32_arithmetic(make: Maker) -> None:
    """Each step equals the float32 step from the same start, rounded; the state is float32."""
    for dtype, rounding in (("float16", 2e-3), ("bfloat16", 1e-2)):
        half, optimizer = variables(dtype), make()
        optimizer.build(half)
        for grads in gradients(3):
            grads = [tf.cast(grad, dtype) for grad in grads]
            full = [keras.Variable(tf.cast(w, "float32"), dtype="float32", name=w.name) for w in half]
            twin = make()
            twin.build(full)
            twin.set_weights([variable.numpy() for variable in optimizer.variables])
            twin.apply([tf.cast(grad, "float32") for grad in grads], full)
            optimizer.apply(grads, half)
            assert_close(half, full, rounding, f"a step in {dtype} is not the rounded float32 step")
        if all(isinstance(each, RuleOptimizer | OptimizerWrapper) for each in chain_of(optimizer)):
            types = {variable.dtype for variable in optimizer.variables}
            require(types <= {"float32", "int64"}, f"the state for {dtype} variables has types {types}")


def check_float64_is_computed_in_float64(make: Maker) -> None:
    """Differs from float32 by its rounding, and two runs that differ by less than that stay different."""
    single = variables(shapes=FULL_RANK)
    double, moved = variables("float64", FULL_RANK), variables("float64", FULL_RANK)
    for weight, exact, other in zip(single, double, moved):
        exact.assign(tf.cast(weight, "float64"))
        other.assign(tf.cast(weight, "float64") + 1e-12)
    optimizers = [make() for _ in range(3)]
    for grads in gradients(4, FULL_RANK):
        for optimizer, weights in zip(optimizers, (single, double, moved)):
            optimizer.apply([tf.cast(grad, w.dtype) for grad, w in zip(grads, weights)], weights)
    assert_close(double, single, 1e-3, "float64 variables train to something else than float32")
    same = all(np.array_equal(x, y) for x, y in zip(values(double), values(moved)))
    require(not same, "float64 variables lose their precision")


def check_gradients_of_another_type_are_cast(make: Maker) -> None:
    """Numbers, lists, NumPy arrays and other float types: a kernel would abort the process."""
    rows, whole = tf.constant([0, 2, 1], tf.int64), tf.constant([3, 2], tf.int64)
    shapes = ((), (3,), (3, 2), (3, 2), (4, 4))
    for dtype, other in (("float32", "float64"), ("float64", "float32"), ("float32", "bfloat16")):
        plain, cast = variables(dtype, shapes), variables(dtype, shapes)
        a, b = make(), make()
        grads = [tf.fill(weight.shape, tf.constant(0.5, weight.dtype)) for weight in plain]
        grads[3] = tf.IndexedSlices(grads[3], rows, whole)
        mixed = [
            0.5,
            [0.5] * 3,
            np.full((3, 2), 0.5, other if other != "bfloat16" else "float16"),
            tf.IndexedSlices(tf.fill((3, 2), tf.constant(0.5, other)), rows, whole),
            tf.fill((4, 4), tf.constant(0.5, other)),
        ]
        for _ in range(3):
            a.apply(grads, plain)
            b.apply(mixed, cast)
        assert_close(cast, plain, 0.0, f"{other} gradients of {dtype} variables are not cast")


def check_duplicate_rows_equal_the_dense_gradient(make: Maker) -> None:
    """Sparse gradients with a row mentioned twice, all rows touched, equal their dense sum."""
    rows = tf.constant([2, 0, 2, 1, 3], tf.int64)
    dense, sparse = variables(shapes=[(4, 3)]), variables(shapes=[(4, 3)])
    a, b = make(), make()
    for step in range(3):
        part = tf.random.stateless_normal((5, 3), (step, 0))
        a.apply([tf.math.unsorted_segment_sum(part, rows, 4)], dense)
        b.apply([tf.IndexedSlices(part, rows, tf.constant([4, 3], tf.int64))], sparse)
    assert_close(sparse, dense, 1e-6, "duplicate rows are not summed")


def check_variables_of_several_types_train_together(make: Maker) -> None:
    """In any order, also where the first one has no gradient."""

    def run(dtypes: tuple[str, ...], missing: bool) -> list[np.ndarray]:
        weights = [keras.Variable(np.full(3, 0.5), dtype=dtype, name="v") for dtype in dtypes]
        optimizer = make()
        optimizer.build(weights)
        for _ in range(4):
            grads = [tf.constant([0.1, -0.2, 0.3], dtype) for dtype in dtypes]
            optimizer.apply([None, *grads[1:]] if missing else grads, weights)
        return values(weights)

    for dtypes in (("float32", "float64"), ("bfloat16", "float64", "float32")):
        for missing in (False, True):
            same = run(("float32",) * len(dtypes), missing)
            for x, y in zip(run(dtypes, missing), same):
                np.testing.assert_allclose(x, y, rtol=1e-2, atol=1e-2, err_msg=f"{dtypes}, {missing=}")


def check_tensorflow_variables_train_as_keras_variables(make: Maker) -> None:
    """A custom loop may hold `tf.Variable`."""
    weights = variables()
    plain = [tf.Variable(weight.numpy(), name=weight.name) for weight in weights]
    a, b = make(), make()
    for grads in gradients(4):
        a.apply(grads, weights)
        b.apply(grads, plain)
    assert_close(plain, weights, 0.0, "a tf.Variable trains to something else than a keras.Variable")


def check_constraints_hold(make: Maker) -> None:
    """After every call."""
    weights = [keras.Variable([0.015, 2.0, 1.0], name="v")]
    weights[0].constraint = keras.constraints.NonNeg()
    optimizer = make()
    for _ in range(8):
        optimizer.apply([tf.constant([50.0, 1.0, -1.0])], weights)
        require(weights[0].numpy().min() >= 0, "an update leaves the constraint of its variable")


def check_bad_gradients_are_refused(make: Maker) -> None:
    """None only, a wrong shape, an unknown variable: an error, and nothing has changed."""
    optimizer, weights = make(), variables(shapes=[(3,), (2, 2)])
    optimizer.build(weights)
    bad = {
        "no gradient at all": ([None, None], weights),
        "a gradient of another shape": ([tf.ones(3), tf.ones((2, 3))], weights),
        "a variable it was not built on": ([tf.ones(1)], [keras.Variable([1.0])]),
    }
    before = values(weights) + values(optimizer.variables)
    for what, (grads, targets) in bad.items():
        try:
            optimizer.apply(grads, targets)
        except ValueError:
            pass
        else:
            raise AssertionError(f"`apply` accepts {what}.")
    after = values(weights) + values(optimizer.variables)
    assert_close(after, before, 0.0, "a refused call of `apply` has changed something")


def check_a_variable_without_gradient_stays(make: Maker) -> None:
    """In some calls and in all of them; the others train."""
    calls = updates_after(make())
    weights, optimizer = variables(shapes=[(3,), (2, 2), (4,)]), make()
    optimizer.build(weights)
    start = values(weights)
    for step in range(4 * calls):
        turn = step // calls % 2  # alternate between the first two, update by update
        # Centering leaves nothing of a gradient with equal elements.
        grads = [tf.ones(3), tf.constant([[1.0, 2.0], [3.0, 5.0]]), None]
        grads[turn] = None
        optimizer.apply(grads, weights)
    moved = [not np.array_equal(x, y) for x, y in zip(start, values(weights))]
    require(moved == [True, True, False], f"variables that moved: {moved}, expected the first two")


def check_nan_in_one_gradient_stays_in_its_variable(make: Maker) -> None:
    """No error in eager mode or in a graph, and no NaN left where an accumulation begins anew."""
    calls = updates_after(make())
    for graph in (False, True):
        optimizer, weights = make(), variables(shapes=[(3,), (2, 2)])
        optimizer.build(weights)
        apply = functools.partial(optimizer.apply, trainable_variables=weights)
        step = traced(optimizer, weights) if graph else apply
        state, start = values(optimizer.variables), values(weights)
        step([tf.fill([3], np.float32("nan")), tf.ones((2, 2))])
        for _ in range(calls - 1):
            step([tf.ones(3), tf.ones((2, 2))])
        for variable, value in zip([*weights, *optimizer.variables], start + state):
            variable.assign(value)
        for _ in range(2 * calls):
            step([tf.ones(3), tf.ones((2, 2))])
        finite = all(np.isfinite(value).all() for value in values(weights))
        require(finite, "a NaN outlives the weights and the state that were put back")
