"""Schedules against float64 references, their composition, their configs, and bad arguments."""

import doctest
import importlib
import math
import pkgutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt import schedules as S

KERAS = keras.optimizers.schedules
COSINE = lambda t, n: 0.5 * (1 + math.cos(math.pi * min(t / n, 1)))  # noqa: E731


def warmup_cosine(t):
    return 1e-4 + (1e-2 - 1e-4) * t / 10 if t < 10 else 1e-2 * COSINE(t - 10, 90)


def one_cycle(t):
    start, end = 0.4 / 25, 0.4 / 25 / 1e4
    rise = 0.3 * 100
    if t < rise:
        return start + (0.4 - start) * (1 - COSINE(t, rise))
    return end + (0.4 - end) * COSINE(t - rise, 100 - rise)


def cyclical(mode):
    def rate(t):
        cycle = math.floor(1 + t / 40)
        x = abs(t / 20 - 2 * cycle + 1)
        scale = {"triangular": 1, "triangular2": 1 / 2 ** (cycle - 1), "exp_range": 0.99**t}[mode]
        return 1e-3 + (1e-1 - 1e-3) * max(0, 1 - x) * scale

    return rate


def trapezoid(t):
    if t < 10:
        return t / 10
    return 1.0 if t < 60 else 0.1 + 0.9 * (1 - math.sqrt(min((t - 60) / 20, 1)))


def sequence(t):
    return 0.5 if t < 30 else (0.1 * 0.5 ** ((t - 30) / 10) if t < 50 else 0.01)


def by_sample(t):
    samples = t * 4 if t < 5 else 20 + (t - 5) * 8
    return 1.0 * COSINE(samples, 200)


CASES = {
    "warmup": (S.Warmup(KERAS.CosineDecay(1e-2, 90), 10, initial=1e-4), warmup_cosine),
    "warmup_constant": (S.Warmup(0.1, 8, shape="cosine"), lambda t: 0.1 * (1 - COSINE(t, 8))),
    "one_cycle": (S.OneCycle(0.4, 100), one_cycle),
    "triangular": (S.Cyclical(1e-3, 1e-1, 20), cyclical("triangular")),
    "triangular2": (S.Cyclical(1e-3, 1e-1, 20, "triangular2"), cyclical("triangular2")),
    "exp_range": (S.Cyclical(1e-3, 1e-1, 20, "exp_range", gamma=0.99), cyclical("exp_range")),
    "trapezoid": (S.WarmupStableDecay(1.0, 10, 50, 20, final=0.1, shape="sqrt"), trapezoid),
    "trapezoid_no_warmup": (S.WarmupStableDecay(1.0, 0, 0, 50), lambda t: max(1 - t / 50, 0)),
    "inverse": (S.InverseSquareRoot(1.0, 16), lambda t: min((t + 1) / 16, math.sqrt(16 / (t + 1)))),
    "sequence": (
        S.Sequence([(0.5, 30), (KERAS.ExponentialDecay(0.1, 10, 0.5), 20), (0.01, None)]),
        sequence,
    ),
    "by_sample": (S.BySample(KERAS.CosineDecay(1.0, 200), S.Steps({0: 4, 17: 8})), by_sample),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference_at_every_step_eagerly_and_in_xla(name):
    schedule, reference = CASES[name]
    compiled = tf.function(schedule, jit_compile=True, input_signature=[tf.TensorSpec((), tf.int64)])
    for step in range(130):
        expected = reference(step)
        for value in (schedule(step), compiled(tf.constant(step, tf.int64))):
            assert value.dtype == tf.float32
            np.testing.assert_allclose(float(value), expected, rtol=2e-6, atol=1e-9, err_msg=f"step {step}")


@pytest.mark.parametrize("name", CASES)
def test_config_round_trip(name):
    schedule, _ = CASES[name]
    copy = KERAS.deserialize(KERAS.serialize(schedule))
    assert type(copy) is type(schedule)
    assert KERAS.serialize(copy) == KERAS.serialize(schedule)
    assert [float(copy(t)) for t in range(0, 130, 7)] == [float(schedule(t)) for t in range(0, 130, 7)]


def test_large_steps_keep_their_precision():
    step = 2**40 + 1  # float32 cannot hold it
    assert float(S.Sequence([(1.0, 2**40 + 1), (2.0, None)])(step)) == 2.0
    assert float(S.Sequence([(1.0, 2**40 + 2), (2.0, None)])(step)) == 1.0


@pytest.mark.parametrize(
    "inner",
    [
        KERAS.PiecewiseConstantDecay([10, 20], [3.0, 2.0, 1.0]),
        KERAS.ExponentialDecay(1.0, 10, 0.5, staircase=True),
        KERAS.PolynomialDecay(1.0, 30, cycle=True),
        KERAS.InverseTimeDecay(1.0, 10, 0.5),
        KERAS.CosineDecayRestarts(1.0, 10),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_keras_schedules_compose(inner):
    for outer, offset in ((S.Warmup(inner, 5), 5), (S.Sequence([(0.0, 5), (inner, None)]), 5)):
        for step in range(5, 60, 3):
            assert float(outer(step)) == pytest.approx(float(inner(step - offset)), rel=1e-6)


def test_drives_any_optimizer_through_fit():
    schedule = S.Warmup(S.OneCycle(0.2, 10), 4)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(schedule), "mae", jit_compile=False)
    weight = float(model.weights[0][0, 0])
    ones = np.ones((12, 1), "f")
    model.fit(ones, ones * 100, batch_size=1, epochs=1, verbose=0)  # gradient is -1 at every step
    expected = weight + sum(float(schedule(t)) for t in range(12))
    assert float(model.weights[0][0, 0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: S.Warmup("0.1", 5), TypeError, "after"),
        (lambda: S.Warmup(0.1, 0), ValueError, "warmup_steps"),
        (lambda: S.Warmup(0.1, 5, initial=float("nan")), ValueError, "initial"),
        (lambda: S.Warmup(0.1, 5, shape="cubic"), ValueError, "shape"),
        (lambda: S.OneCycle(0.0, 10), ValueError, "peak"),
        (lambda: S.OneCycle(0.1, 10, warmup_fraction=1.0), ValueError, "warmup_fraction"),
        (lambda: S.OneCycle(0.1, 10, initial_divisor=0.5), ValueError, "initial_divisor"),
        (lambda: S.Cyclical(0.1, 0.1, 5), ValueError, "maximum"),
        (lambda: S.Cyclical(0.1, 0.2, 5, mode="square"), ValueError, "mode"),
        (lambda: S.WarmupStableDecay(0.1, 1, 1, 0), ValueError, "decay_steps"),
        (lambda: S.WarmupStableDecay(0.1, 1, 1, 5, final=0.2), ValueError, "final"),
        (lambda: S.InverseSquareRoot(-1.0, 5), ValueError, "peak"),
        (lambda: S.Sequence([]), ValueError, "parts"),
        (lambda: S.Sequence([(0.1, None), (0.2, 5)]), TypeError, "parts"),
        (lambda: S.BySample(0.1, 32), TypeError, "schedule"),
        (lambda: S.BySample(KERAS.CosineDecay(1.0, 5), 0), ValueError, "batch_size"),
        (lambda: S.plot(0.1, 5, "x.png"), TypeError, "schedule"),
    ],
)
def test_bad_arguments_are_named(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_plot_draws_both_kinds(tmp_path):
    rate = S.plot(CASES["one_cycle"][0], 100, tmp_path / "deep" / "rate.svg")
    sizes = S.plot(S.GeometricRamp(16, 128, 3000), 5000, tmp_path / "sizes.png")
    assert "learning rate" in rate.read_text() or rate.stat().st_size > 2000
    assert sizes.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(S.__path__, "tfopt.schedules.")])
def test_docstring_examples_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"keras": keras, "tfopt": tfopt}
    failed, _ = doctest.testmod(importlib.import_module(module), extraglobs=names)
    assert failed == 0
