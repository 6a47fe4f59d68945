"""Averages that optimizers offer: through wrappers, callbacks, batch norm and files, against NumPy."""

import keras
import numpy as np
import pytest
from contract import apply, close, gradients, values, variables
from test_optimizers_fit import X, Y

import tfopt.optimizers as to
from tfopt import _keras_internals
from tfopt.callbacks import WeightAveraging, averaged
from tfopt.optimizers._rule import ema_values

RATE = float(np.float32(0.05))
WRAPPED = {
    "alone": lambda inner: inner,
    "accumulated": lambda inner: to.GradientAccumulation(inner, steps=1),
    "stacked": lambda inner: to.GradientAccumulation(to.AdaptiveGradientClipping(inner, 1e9), steps=1),
    "loss-scaled": keras.optimizers.LossScaleOptimizer,
}


@pytest.mark.parametrize(
    "make",
    [
        lambda: to.ScheduleFreeSGD(0.1),
        lambda: to.SGD(0.1, use_ema=True),
        lambda: keras.optimizers.SGD(0.1, use_ema=True),
    ],
)
def test_wrappers_offer_the_average_of_the_optimizer_inside(make):
    plain, wrapped, grads = variables(), variables(), gradients()
    one, two = make(), WRAPPED["stacked"](make())
    for t in range(1, 6):
        apply(one, plain, grads[t])
        apply(two, wrapped, grads[t])
    expected = _keras_internals.average_values(one, plain)
    close(two.average_values(wrapped), expected, 1e-6)
    close(_keras_internals.average_values(two, wrapped), expected, 1e-6)
    assert to.GradientAccumulation(to.SGD(0.1), 2).average_values(wrapped) is None


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-15), ("float32", 5e-7), ("bfloat16", 5e-7)])
def test_the_average_starts_at_the_weights_of_the_first_step(dtype, tolerance, momentum):
    optimizer = to.SGD(0.125, use_ema=True, ema_momentum=momentum)
    weight = keras.Variable([1.0, -2e5, 3e-7], dtype=dtype)
    expected = None
    for gradient in np.random.default_rng(0).normal(size=(6, 3)):
        apply(optimizer, [weight], [gradient])
        (value,) = values([weight])
        expected = value if expected is None else momentum * expected + (1 - momentum) * value
    average = ema_values(optimizer, [weight])
    np.testing.assert_allclose(values(average)[0], expected, rtol=tolerance)


def test_lookahead_must_not_move_weights_that_follow_from_the_state():
    """So there is no `averaged(model)` of `Lookahead(ScheduleFreeAdamW)` that could be wrong."""
    with pytest.raises(ValueError, match="`Lookahead` must not wrap .*ScheduleFreeAdamW"):
        to.Lookahead(to.ScheduleFreeAdamW(0.1))


def network(optimizer):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(6, name="first"), keras.layers.BatchNormalization(name="norm")]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.ReLU(), keras.layers.Dense(3)])
    model.compile(optimizer, "mse", jit_compile=False)
    return model


def predictions_at(weights, x):
    """The network in NumPy float64 with the batch statistics of all of `x`, and these statistics."""
    kernel, bias, gamma, beta, last_kernel, last_bias = (np.asarray(w, np.float64) for w in weights)
    hidden = x @ kernel + bias
    mean, variance = hidden.mean(0), hidden.var(0)
    hidden = gamma * (hidden - mean) / np.sqrt(variance + 1e-3) + beta
    return np.maximum(hidden, 0) @ last_kernel + last_bias, (mean, variance)


FULL = pytest.mark.full


@pytest.mark.parametrize(
    "wrap", ["alone", "stacked", *(pytest.param(n, marks=FULL) for n in list(WRAPPED)[1::2])]
)
@pytest.mark.parametrize("kind", [to.ScheduleFreeAdamW, pytest.param(to.ScheduleFreeSGD, marks=FULL)])
def test_schedule_free_with_batch_norm_from_fit_to_file(kind, wrap, tmp_path):
    """Evaluated, checkpointed and saved at x with the statistics of x; then trained on at y."""
    core = kind(RATE)
    model = network(WRAPPED[wrap](core))
    averaging = WeightAveraging(mode="optimizer", batch_norm_data=[X[:16], X[16:]], keep=False)
    path = str(tmp_path / "checkpoint.keras")
    options = {"batch_size": 8, "shuffle": False, "verbose": 0, "validation_data": (X, Y)}
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    history = model.fit(X, Y, epochs=5, callbacks=[averaging, checkpoint], **options)

    at_y = [w.numpy() for w in model.weights]
    z = [slots[0].numpy() for slots in core._slots]
    beta = core._interpolation
    x = [(y.numpy() - (1 - beta) * fast) / beta for y, fast in zip(model.trainable_variables, z)]
    expected, (mean, variance) = predictions_at(x, X.astype(np.float64))
    loss = np.mean((expected - Y) ** 2)
    with averaged(model):
        np.testing.assert_allclose(model.get_layer("norm").moving_mean, mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(model.get_layer("norm").moving_variance, variance, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(model.predict(X, verbose=0), expected, rtol=1e-4, atol=1e-4)
        model.save(tmp_path / "model.keras")
    for saved in (path, tmp_path / "model.keras"):
        loaded = keras.models.load_model(saved)
        np.testing.assert_allclose(loaded.predict(X, verbose=0), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(history.history["val_loss"][-1], loss, rtol=1e-4)
    for before, now in zip(at_y, model.weights, strict=True):
        np.testing.assert_array_equal(before, now.numpy())
    more = model.fit(X, Y, epochs=3, **options)
    assert more.history["loss"][-1] < history.history["loss"][-1]


def test_averages_matter_for_the_loss():
    """At a rate without a schedule the average is better than the point that trains."""
    model = network(to.ScheduleFreeSGD(0.5))
    averaging = WeightAveraging(mode="optimizer", batch_norm_data=[X], keep=False)
    noisy = Y + np.random.default_rng(2).normal(size=Y.shape)
    model.fit(X, noisy, batch_size=4, epochs=20, verbose=0, callbacks=[averaging])
    last = model.evaluate(X, noisy, verbose=0)
    with averaged(model):
        assert model.evaluate(X, noisy, verbose=0) < last
