"""GradientNoiseScale against float64 formulas and a known noise; the ramp that follows it."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt import callbacks as C
from tfopt.optimizers import Cautious, GradientAccumulation, Lookahead

RNG = np.random.default_rng(0)
ROWS, RATE, DECAY = 48, 0.05, 0.8
X = RNG.normal(size=(ROWS, 5)).astype("f")
Y = (X @ np.arange(1.0, 6.0)[:, None] + RNG.normal(size=(ROWS, 1))).astype("f")


class Traces(keras.layers.Layer):
    count = 0

    def call(self, x, training=False):
        Traces.count += bool(training)
        return x


def make(optimizer, loss="mse", **options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((5,)), Traces(), keras.layers.Dense(1, use_bias=False)])
    model.compile(optimizer, loss, **{"jit_compile": False, **options})
    return model


def data(batch):
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(batch)


def gradient(w, rows):
    x, y = X[rows].astype("f8"), Y[rows].astype("f8")
    return 2 * x.T @ (x @ w - y) / len(x)


def by_hand(weights, update_size, parts, epochs=2, step=lambda g: g):
    """Noise scale after each epoch of SGD whose updates see `parts` equal parts, from the definition."""
    w = weights[0].astype("f8")
    noise = signal = 0.0
    scales = []
    for _ in range(epochs):
        for begin in range(0, ROWS, update_size):
            rows = np.split(np.arange(begin, begin + update_size), parts)
            grads = [gradient(w, part) for part in rows]
            mean = np.mean(grads, 0)
            small, big, b = np.mean([(g**2).sum() for g in grads]), (mean**2).sum(), update_size // parts
            signal += (1 - DECAY) * ((update_size * big - b * small) / (update_size - b) - signal)
            noise += (1 - DECAY) * ((small - big) / (1 / b - 1 / update_size) - noise)
            w = w - RATE * step(mean)
        scales.append(noise / signal)
    return scales, w


def sgd(**options):
    return keras.optimizers.SGD(RATE, **options)


CASES = {
    # How the optimizer is made, batch of `fit`, samples and parts of an update, replicas.
    "accumulation": (lambda: GradientAccumulation(sgd(), 3), 4, 12, 3, 1),
    "replicas": (sgd, 12, 12, 2, 2),
    "replicas of tfopt's": (lambda: tfopt.optimizers.SGD(RATE), 12, 12, 2, 2),
    "accumulation on replicas": (lambda: GradientAccumulation(sgd(), 2), 8, 16, 4, 2),
    "inside Lookahead": (lambda: Lookahead(GradientAccumulation(sgd(), 3), 10**6), 4, 12, 3, 1),
    "replicas inside Lookahead": (lambda: Lookahead(sgd(), 10**6), 12, 12, 2, 2),
    "loss scale": (
        lambda: keras.optimizers.LossScaleOptimizer(GradientAccumulation(sgd(), 3), initial_scale=64.0),
        4,
        12,
        3,
        1,
    ),
    "a wrapper outside that sums": (
        lambda: tfopt.optimizers.AdaptiveGradientClipping(GradientAccumulation(sgd(), 3), 1e6),
        8,
        24,
        3,
        2,
    ),
}


BY_DEFAULT = ("accumulation", "accumulation on replicas", "replicas inside Lookahead")
FULL = pytest.mark.full


@pytest.mark.parametrize("case", [pytest.param(c, marks=[] if c in BY_DEFAULT else [FULL]) for c in CASES])
def test_equals_the_definition(case, request):
    optimizer, batch, size, parts, replicas = CASES[case]
    strategy = request.getfixturevalue("two_replicas") if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        model, plain = make(optimizer()), make(optimizer())
    scales, weights = by_hand(model.get_weights(), size, parts)
    noise = C.GradientNoiseScale(DECAY)
    history = model.fit(data(batch), epochs=2, verbose=0, callbacks=[noise]).history
    assert history["noise_scale"] == pytest.approx(scales, rel=1e-3)
    np.testing.assert_allclose(model.get_weights()[0], weights, rtol=1e-4, atol=1e-5)
    plain.fit(data(batch), epochs=2, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], plain.get_weights()[0])


OTHERS = ({"run_eagerly": True}, {"steps_per_execution": 3})


@pytest.mark.parametrize("option", [{"jit_compile": True}, *(pytest.param(o, marks=FULL) for o in OTHERS)])
def test_in_every_mode(option):
    model = make(GradientAccumulation(sgd(), 3), **option)
    scales, _ = by_hand(model.get_weights(), 12, 3)
    history = model.fit(data(4), epochs=2, verbose=0, callbacks=[C.GradientNoiseScale(DECAY)]).history
    assert history["noise_scale"] == pytest.approx(scales, rel=1e-3)


def planted(noise):
    """A loss whose gradient in each sample is the sample itself: mean (1, 1, 1, 1, 1), known covariance."""
    z = 1 + noise * np.random.default_rng(1).normal(size=(4096, 5)).astype("f")
    return tf.data.Dataset.from_tensor_slices((z, np.zeros((4096, 1), "f"))).batch(8, drop_remainder=True)


def linear(y_true, y_pred):
    return y_pred


def test_estimates_a_known_noise_scale():
    model = make(GradientAccumulation(keras.optimizers.SGD(0.0), 4), loss=linear)
    history = model.fit(planted(3.0), epochs=2, verbose=0, callbacks=[C.GradientNoiseScale(0.99)]).history
    assert history["noise_scale"][-1] == pytest.approx(9.0, rel=0.15)  # trace 5 * 9 over norm 5


def test_second_fit_goes_on_without_a_trace_and_beside_the_monitor():
    model, noise, monitor = make(GradientAccumulation(sgd(), 3)), C.GradientNoiseScale(DECAY), None
    scales, _ = by_hand(model.get_weights(), 12, 3)
    again = copy.deepcopy(noise)
    first = model.fit(data(4), verbose=0, callbacks=[noise]).history
    traces = Traces.count
    second = model.fit(data(4), epochs=2, initial_epoch=1, verbose=0, callbacks=[noise]).history
    assert [*first["noise_scale"], *second["noise_scale"]] == pytest.approx(scales, rel=1e-3)
    assert Traces.count == traces
    for order in (1, -1):
        model = make(GradientAccumulation(sgd(), 3))
        monitor, fresh = C.TrainingMonitor(norms_every=1), copy.deepcopy(again)
        history = model.fit(data(4), epochs=2, verbose=0, callbacks=[fresh, monitor][::order]).history
        assert history["noise_scale"] == pytest.approx(scales, rel=1e-3)
        assert history["gradient_norm"][0] > 0
        assert "step" not in vars(model.optimizer)
        assert "make_train_function" not in vars(model)


@pytest.mark.full
def test_ramp_follows_the_noise_scale():
    model = make(GradientAccumulation(keras.optimizers.SGD(0.01, momentum=0.9), 2), loss=linear)
    noise = C.GradientNoiseScale(0.99)
    ramp = C.NoiseScaleRamp(8, 64, scale_learning_rate="linear")
    history = model.fit(planted(8.0), epochs=5, verbose=0, callbacks=[noise, ramp]).history
    assert history["batch_size"][:3] == [16, 32, 64]  # at most doubled in each epoch
    final = int(model.optimizer.current_steps.numpy()) * 8
    assert 64 <= final <= 88  # 8^2, and not less than the largest measurement
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01 * final / 16, rel=1e-5)
    capped = make(GradientAccumulation(keras.optimizers.SGD(0.0), 2), loss=linear)
    history = capped.fit(
        planted(12.0), epochs=4, verbose=0, callbacks=[noise, C.NoiseScaleRamp(8, 5)]
    ).history
    assert history["batch_size"] == [16, 32, 40, 40]
    assert float(capped.optimizer.learning_rate) == 0.0


def test_ramp_survives_resume(tmp_path):
    class Stop(Exception):
        pass

    def run(folder, stop_at=None):
        def stop(epoch, logs):
            if epoch == stop_at:
                raise Stop

        model = make(GradientAccumulation(sgd(momentum=0.9), 2))
        noise, ramp = C.GradientNoiseScale(0.5), C.NoiseScaleRamp(4, 8, scale_learning_rate="sqrt")
        last = keras.callbacks.LambdaCallback(on_epoch_begin=stop)
        callbacks = [C.Resume(folder, every_seconds=0), noise, ramp, last]
        history = model.fit(data(4), epochs=6, verbose=0, callbacks=callbacks).history
        return [
            *history["noise_scale"],
            *history["batch_size"],
            *(v.numpy() for v in model.optimizer.variables),
        ]

    whole = run(tmp_path / "whole")
    for epoch in (2, 4):
        with pytest.raises(Stop):
            run(tmp_path / str(epoch), epoch)
        again = run(tmp_path / str(epoch))
        assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(whole, again, strict=True)), epoch


def test_what_does_not_fit_is_refused(two_replicas):
    with pytest.raises(ValueError, match="several parts"):
        make(sgd()).fit(data(4), verbose=0, callbacks=[C.GradientNoiseScale()])
    for optimizer in (sgd(), Cautious(sgd())):
        with pytest.raises(ValueError, match="accumulation of a number of steps"):
            make(optimizer).fit(data(4), verbose=0, callbacks=[C.NoiseScaleRamp(4, 8)])
    schedule = GradientAccumulation(sgd(), tfopt.schedules.Steps({0: 8}), 4)
    with pytest.raises(ValueError, match="accumulation of a number of steps"):
        make(schedule).fit(data(4), verbose=0, callbacks=[C.NoiseScaleRamp(4, 8)])
    with pytest.raises(ValueError, match="after a `GradientNoiseScale`"):
        make(GradientAccumulation(sgd(), 2)).fit(data(4), verbose=0, callbacks=[C.NoiseScaleRamp(4, 8)])
    for make_callback, word in (
        (lambda: C.GradientNoiseScale(1.0), "smoothing"),
        (lambda: C.NoiseScaleRamp(0, 8), "micro_batch_size"),
        (lambda: C.NoiseScaleRamp(4, 1), "maximum_steps"),
        (lambda: C.NoiseScaleRamp(4, 8, growth=1), "growth"),
        (lambda: C.NoiseScaleRamp(4, 8, scale_learning_rate="cubic"), "scale_learning_rate"),
    ):
        with pytest.raises(ValueError, match=f"`{word}`"):
            make_callback()
