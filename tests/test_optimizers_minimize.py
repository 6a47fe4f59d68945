"""`minimize`: full-batch training by L-BFGS."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.optimizers import minimize


def regression(dtype="float64", **options):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    y = x @ rng.normal(size=(3, 2)) + 0.1 * rng.normal(size=(40, 2))
    model = keras.Sequential([keras.Input((3,), dtype=dtype), keras.layers.Dense(2, dtype=dtype, **options)])
    return model, x.astype(dtype), y.astype(dtype)


@pytest.mark.parametrize("batch_size", [None, 16])
@pytest.mark.parametrize("method", ["L-BFGS-B", "BFGS"])
def test_least_squares_reaches_the_last_digits_in_float64(method, batch_size):
    model, x, y = regression()
    minimum = minimize(model, x, y, loss="mse", method=method, batch_size=batch_size)
    exact = np.linalg.lstsq(np.c_[x, np.ones(40)], y, rcond=None)[0]
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(np.r_[kernel, bias[None]], exact, atol=1e-7)
    assert minimum.converged and minimum.gradient_norm < 1e-7
    np.testing.assert_allclose(minimum.loss, np.mean((np.c_[x, np.ones(40)] @ exact - y) ** 2), rtol=1e-12)
    assert all(np.diff(minimum.losses) <= 0)


def test_regularization_and_weights_of_examples_count():
    model, x, y = regression(kernel_regularizer=keras.regularizers.L2(0.5), use_bias=False)
    weight = np.linspace(0.1, 2.0, 40)
    minimize(model, x, y, loss=keras.losses.MeanSquaredError(), sample_weight=weight)
    left = (x * weight[:, None]).T @ x / 40 / 2 + 0.5 * np.eye(3)  # the mean is over two outputs, too
    np.testing.assert_allclose(
        model.get_weights()[0], np.linalg.solve(left, (x * weight[:, None]).T @ y / 80), atol=1e-6
    )


def test_a_physics_informed_loss_needs_no_targets():
    """u'' = -u with u(0) = 0, u'(0) = 1 is the sine."""
    keras.utils.set_random_seed(0)
    x = np.linspace(0, 2, 20)[:, None]
    inputs = keras.Input((1,), dtype="float64")
    hidden = keras.layers.Dense(8, "tanh", dtype="float64")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, dtype="float64")(hidden))

    def residual(_, __):
        points = tf.constant(x)
        with tf.GradientTape() as outer:
            outer.watch(points)
            with tf.GradientTape() as inner:
                inner.watch(points)
                u = model(points)
            slope = inner.gradient(u, points)
        curvature = outer.gradient(slope, points)
        return tf.reduce_mean((curvature + u) ** 2) + u[0, 0] ** 2 + (slope[0, 0] - 1) ** 2

    minimize(model, x, loss=residual, max_steps=100)
    np.testing.assert_allclose(model(x), np.sin(x), atol=0.02)


def test_the_compiled_loss_is_used_and_float32_works():
    model, x, y = regression("float32")
    model.compile("adam", "mse")
    steps = []
    minimum = minimize(model, x, y, callback=lambda step, loss: steps.append((step, loss)))
    assert minimum.loss < 0.02 and model.get_weights()[0].dtype == np.float32
    assert [step for step, _ in steps] == list(range(1, len(steps) + 1))
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), minimum.loss, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": None}, "`loss` must be one loss"),
        ({"loss": "mse", "method": "newton"}, "`method` must be one of"),
        ({"loss": lambda y, p: tf.constant(float("nan"))}, "finite at the start"),
    ],
)
def test_what_cannot_be_minimized_is_refused(arguments, message):
    model, x, y = regression("float32")
    with pytest.raises(ValueError, match=message):
        minimize(model, x, y, **arguments)


def test_datasets_constraints_and_unequal_arrays_are_refused():
    model, x, y = regression("float32", kernel_constraint="non_neg")
    with pytest.raises(ValueError, match="constraints of variables"):
        minimize(model, x, y, loss="mse")
    with pytest.raises(TypeError, match="Gather it"):
        minimize(model, tf.data.Dataset.from_tensors(x), loss="mse")
    with pytest.raises(ValueError, match="as many examples"):
        minimize(model, x, y[:-1], loss="mse")
