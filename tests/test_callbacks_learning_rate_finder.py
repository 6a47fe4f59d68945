"""LearningRateFinder: exact restoring, where it stops, what it suggests, figure and command."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt import _keras_internals
from tfopt import callbacks as C
from tfopt.callbacks.learning_rate_finder import RangeTest
from tfopt.cli import main

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(48, 6)).astype("f"), RNG.normal(size=(48, 2)).astype("f")


def make(optimizer=None, **options):
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(8, "relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        keras.layers.GaussianNoise(0.1),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential([keras.Input((6,)), *layers])
    model.compile(
        optimizer or keras.optimizers.Adam(0.01), "mse", metrics=["mae"], **{"jit_compile": False, **options}
    )
    return model


def everything(model):
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


class Disturbance(keras.layers.Layer):
    """Draws from the generators that the test must put back."""

    def call(self, x, training=False):
        if training:
            np.random.uniform(), random.random()
            x = x + 0.0 * keras.random.uniform(())
        return x


EAGER, SEVERAL = {"run_eagerly": True}, {"steps_per_execution": 3}
FULL = [(False, {}), (False, EAGER), (True, EAGER), (True, SEVERAL)]


@pytest.mark.parametrize(
    ("trained", "options"),
    [(True, {}), (False, SEVERAL), *(pytest.param(*case, marks=pytest.mark.full) for case in FULL)],
)
def test_leaves_everything_as_it_was(options, trained):
    plain, tested = make(**options), make(**options)
    for model in (plain, tested):
        _keras_internals.build_for_training(model, None)
        if trained:
            model.fit(X, Y, batch_size=8, verbose=0)
    before = everything(plain)
    plain.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    finder = C.LearningRateFinder(1e-5, 1e3, 40)
    finder.test(tested, X, y=Y, batch_size=8)
    assert len(finder.rates) > 20
    assert equal(everything(tested), before)
    tested.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    assert equal(plain.get_weights(), tested.get_weights())


def test_puts_back_everything_if_the_data_fail():
    def data():
        yield from [(X[:8], Y[:8])] * 5
        raise RuntimeError("a bad file")

    model = make(keras.optimizers.Adam(0.01))
    before, rate = everything(model), float(model.optimizer.learning_rate)
    with pytest.raises(tf.errors.UnknownError, match="a bad file"):
        C.LearningRateFinder().test(model, data())
    assert equal(everything(model)[: len(before)], before)
    assert float(model.optimizer.learning_rate) == rate and int(model.optimizer.iterations) == 0


def test_puts_back_the_generators():
    model = keras.Sequential([keras.Input((6,)), Disturbance(), keras.layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    keras.random.uniform(())
    state = _keras_internals.random_state()
    C.LearningRateFinder(steps=10).test(model, X, y=Y)
    again = _keras_internals.random_state()
    assert state[0] == again[0] and state[1][2] == again[1][2] and equal(state[2:], again[2:])
    model.fit(X, Y, verbose=0)
    moved = _keras_internals.random_state()
    assert state[0] != moved[0] and not equal(state[2:], moved[2:])  # or the test above proves nothing


def quadratic(rate):
    """Full-batch gradient descent on a parabola whose largest curvature is 2: 1 is the largest rate."""
    x = np.concatenate([np.eye(6), -np.eye(6)]).astype("f") * np.sqrt(6)
    y = (x @ np.linspace(1, 2, 6))[:, None].astype("f")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(rate), "mse", jit_compile=False)
    return model, tf.data.Dataset.from_tensor_slices((x, y)).batch(12)


def test_losses_are_those_of_each_rate_and_divergence_ends_it():
    model, data = quadratic(0.5)
    kernel = model.get_weights()[0].astype("f8")
    finder = C.LearningRateFinder(1e-3, 100.0, 60)
    suggestion = finder.test(model, data)
    x, y = (a.astype("f8") for a in next(iter(data.as_numpy_iterator())))
    expected = []
    for rate in finder.rates:
        error = x @ kernel - y
        expected.append((error**2).mean())
        kernel = kernel - rate * 2 * x.T @ error / len(x)
    # From here on rounding is all that is left of the error, and later it is blown up.
    np.testing.assert_allclose(finder.losses[:30], expected[:30], rtol=1e-3)
    assert 1.0 < finder.rates[-1] < 10.0  # it diverges beyond 1 and has not gone on to 100
    assert 0.02 < suggestion < 1.0
    assert float(model.optimizer.learning_rate) == 0.5


def test_suggestion_lies_between_the_steepest_and_the_lowest_place():
    test = RangeTest(1e-4, 1e2, 121, 4.0)
    position = np.log10(test.planned)
    noise = 0.02 * np.random.default_rng(0).normal(size=121)
    falls, rises = 1.5 / (1 + np.exp(-4 * (position + 1.5))), 20 * np.maximum(position - 0.5, 0) ** 2
    ended = [test.observe(loss) for loss in 2.0 - falls + rises + noise]
    assert ended.index(True) < 120
    curve = (2.0 - falls + rises)[: len(test.rates)]
    middle = (position[np.gradient(curve).argmin()] + position[curve.argmin()]) / 2
    assert abs(np.log10(test.suggestion()) - middle) < 0.5
    assert np.abs(test.curve() - curve)[:80].max() < 0.08  # smooth, and it does not lag


def test_a_loss_that_never_falls_gives_no_suggestion(caplog):
    model, data = quadratic(0.5)
    finder = C.LearningRateFinder(10.0, 100.0, 20)
    assert finder.test(model, data) is None
    assert "fell at no rate from 10 on" in caplog.text
    test = RangeTest(1.0, 2.0, 10, 4.0)
    assert test.observe(float("nan")) and test.suggestion() is None


def test_wrappers_generators_and_unknown_cardinality():
    def endless():
        while True:
            yield X[:8], Y[:8]

    unknown = tf.data.Dataset.from_tensor_slices((X, Y)).batch(16).filter(lambda x, y: True)
    for data, options in ((endless(), {}), (unknown, {})):
        model = make(tfopt.optimizers.Lookahead(tfopt.optimizers.AdamW(1e-3, weight_decay=0.1)))
        _keras_internals.build_for_training(model, None)
        before = everything(model)
        finder = C.LearningRateFinder(1e-5, 1e-1, 20)
        finder.test(model, data, **options)
        assert len(finder.losses) == 20
        assert equal(before, everything(model))


def test_under_a_strategy(two_replicas):
    with two_replicas.scope():
        model = make()
    _keras_internals.build_for_training(model, None)
    before = everything(model)
    finder = C.LearningRateFinder(1e-4, 1.0, 10)
    finder.test(model, X, y=Y, batch_size=8)
    assert equal(before, everything(model))


def test_figure(tmp_path):
    model, data = quadratic(0.5)
    finder = C.LearningRateFinder(1e-3, 100.0, 40)
    with pytest.raises(ValueError, match="before the test"):
        finder.plot(tmp_path / "rates.svg")
    finder.test(model, data)
    text = finder.plot(tmp_path / "rates.svg").read_text()
    assert text.lstrip().startswith("<?xml") and len(text) > 5000


@pytest.mark.full
def test_command_draws_and_suggests(tmp_path, capsys):
    plot = tmp_path / "rates.png"
    options = ["--data", "digits", "--weights", "none", "--alpha", "0.25", "--steps", "20"]
    assert main(["lr-find", *options, "--maximum", "10", "--plot", str(plot)]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert 1e-6 < float(line.split()[0]) < 10 and "rates, 1e-06 to" in line
    assert plot.stat().st_size > 5000


def test_bad_use():
    for arguments, word in (
        ({"minimum": 0.0}, "minimum"),
        ({"minimum": 1.0, "maximum": 1.0}, "maximum"),
        ({"steps": 9}, "steps"),
        ({"stop_at": 1.0}, "stop_at"),
    ):
        with pytest.raises(ValueError, match=f"`{word}`"):
            C.LearningRateFinder(**arguments)
    with pytest.raises(TypeError, match="Compile with a number"):
        make(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 9))).fit(
            X, Y, verbose=0, callbacks=[C.LearningRateFinder()]
        )
