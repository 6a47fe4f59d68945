"""Batch-size ramps in `fit` against hand-written float64 loops, in the data and by accumulation."""

import copy

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt import callbacks as C
from tfopt import schedules as S

ROWS, EPOCHS, RATE = 40, 3, 0.02
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 5)).astype("f")
Y = np.stack([np.sin(X.sum(1)), X[:, 0] ** 2], 1).astype("f")
RAMP = S.Steps({0: 4, 36: 8, 60: 16})  # 36 is no multiple of 8, 60 lies inside a batch of 8
SIZES = [4] * 9 + [8] * 3 + [16] * 4  # 36, 60, 124: the last one has 12 of 120 left


class Traces(keras.layers.Layer):
    count = 0

    def call(self, x, training=False):
        Traces.count += bool(training)
        return x


def make(optimizer, **options):
    keras.utils.set_random_seed(1)
    layers = [Traces(), keras.layers.Dense(6, "tanh"), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    model.compile(optimizer, "mse", **{"jit_compile": False, **options})
    return model


def gradients(weights, x, y):
    """Of the mean squared error of a perceptron with one hidden layer, in float64."""
    w1, b1, w2, b2 = weights
    hidden = np.tanh(x @ w1 + b1)
    error = 2 * (hidden @ w2 + b2 - y) / y.size
    back = (error @ w2.T) * (1 - hidden**2)
    return [x.T @ back, back.sum(0), hidden.T @ error, error.sum(0)]


class Momentum:
    def __init__(self, weights):
        self.velocity = [np.zeros_like(w) for w in weights]

    def step(self, weights, grads, rate):
        self.velocity = [0.9 * v - rate * g for v, g in zip(self.velocity, grads)]
        return [w + v for w, v in zip(weights, self.velocity)]

    def jump(self, ratio):
        self.velocity = [v * ratio for v in self.velocity]


class Adam:
    def __init__(self, weights):
        self.m, self.v, self.t = [0 * w for w in weights], [0 * w for w in weights], 0

    def step(self, weights, grads, rate):
        self.t += 1
        self.m = [0.9 * m + 0.1 * g for m, g in zip(self.m, grads)]
        self.v = [0.999 * v + 0.001 * g * g for v, g in zip(self.v, grads)]
        rate = rate * np.sqrt(1 - 0.999**self.t) / (1 - 0.9**self.t)
        return [w - rate * m / (np.sqrt(v) + 1e-7) for w, m, v in zip(weights, self.m, self.v)]

    def jump(self, ratio):
        pass


OPTIMIZERS = {
    "sgd": (lambda: tfopt.optimizers.SGD(RATE, momentum=0.9), Momentum, 1.0),
    "keras sgd": (lambda: keras.optimizers.SGD(RATE, momentum=0.9), Momentum, 1.0),
    "adam": (lambda: keras.optimizers.Adam(RATE), Adam, 0.5),
}


def by_hand(weights, kind, power, sizes=SIZES, correct=True):
    """The same run without Keras and without tfopt."""
    rule, weights = OPTIMIZERS[kind][1](weights), [w.astype("f8") for w in weights]
    order = np.tile(np.arange(ROWS), EPOCHS)
    position = 0
    for step, size in enumerate(sizes):
        if step and size != sizes[step - 1] and correct:
            rule.jump((size / sizes[step - 1]) ** power)
        rows = order[position : position + size]
        grads = gradients(weights, X[rows].astype("f8"), Y[rows].astype("f8"))
        weights = rule.step(weights, grads, RATE * (size / sizes[0]) ** power)
        position += size
    return weights


def in_data(model, *callbacks):
    data = tf.data.Dataset.from_tensor_slices((X, Y))
    batches = tfopt.data.ramped_batches(data, RAMP, epochs=EPOCHS)
    return model.fit(
        batches, epochs=EPOCHS, steps_per_epoch=batches.steps_per_epoch, verbose=0, callbacks=callbacks
    )


def accumulated(model, *callbacks):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    return model.fit(data, epochs=EPOCHS, verbose=0, callbacks=callbacks)


def close(model, expected):
    for weight, value in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(weight, value, rtol=2e-4, atol=2e-5)


FULL = pytest.mark.full
MODES = ("graph", "xla", "mirrored")


def every(kinds, by_default):
    """All kinds in all modes, those not named by `make test-all` only."""
    pairs = [(kind, mode) for kind in kinds for mode in MODES]
    return [pytest.param(*pair, marks=[] if pair in by_default else [FULL]) for pair in pairs]


IN_DATA = every(OPTIMIZERS, [("sgd", "graph"), ("keras sgd", "mirrored"), ("adam", "xla")])
ACCUMULATED = every(["keras sgd", "adam"], [("keras sgd", "mirrored"), ("adam", "graph")])


@pytest.mark.parametrize(("kind", "mode"), IN_DATA)
def test_ramp_in_the_data_equals_a_loop_by_hand(kind, mode, request):
    optimizer, _, power = OPTIMIZERS[kind]
    strategy = request.getfixturevalue("two_replicas") if mode == "mirrored" else tf.distribute.get_strategy()
    with strategy.scope():
        model = make(optimizer(), jit_compile=mode == "xla")
    first, Traces.count = model.get_weights(), 0
    history = in_data(model, C.BatchSizeRamp(RAMP, "auto")).history
    close(model, by_hand(first, kind, power))
    assert int(model.optimizer.iterations.numpy()) == len(SIZES) == RAMP.total_steps(ROWS * EPOCHS)
    per_epoch = -(-len(SIZES) // EPOCHS)
    ends = [min(per_epoch * (epoch + 1), len(SIZES)) - 1 for epoch in range(EPOCHS)]
    assert history["batch_size"] == [SIZES[end] for end in ends]
    assert history["learning_rate"] == pytest.approx([RATE * (SIZES[end] / 4) ** power for end in ends])
    assert Traces.count <= 2 * strategy.num_replicas_in_sync


@pytest.mark.parametrize(("kind", "mode"), ACCUMULATED)
def test_ramp_by_accumulation_equals_the_same_loop(kind, mode, request):
    optimizer, _, power = OPTIMIZERS[kind]
    strategy = request.getfixturevalue("two_replicas") if mode == "mirrored" else tf.distribute.get_strategy()
    with strategy.scope():
        model = make(
            tfopt.optimizers.GradientAccumulation(optimizer(), RAMP, micro_batch_size=4),
            jit_compile=mode == "xla",
        )
    first, Traces.count = model.get_weights(), 0
    accumulated(model, C.BatchSizeRamp(RAMP, "auto"))
    full = SIZES[:-1]  # 12 rows are left over, 3 of the 4 batches of the next update
    close(model, by_hand(first, kind, power, full))
    assert int(model.optimizer.iterations.numpy()) == len(full)
    assert Traces.count <= 2 * strategy.num_replicas_in_sync


@pytest.mark.parametrize("rule", ["linear", *(pytest.param(rule, marks=FULL) for rule in (None, "sqrt"))])
@pytest.mark.parametrize("correct", [True, False])
def test_rules_and_momentum_correction(rule, correct):
    model = make(keras.optimizers.SGD(RATE, momentum=0.9))
    first = model.get_weights()
    in_data(model, C.BatchSizeRamp(RAMP, rule, momentum_correction=correct))
    close(model, by_hand(first, "sgd", {None: 0.0, "linear": 1.0, "sqrt": 0.5}[rule], correct=correct))
    other = by_hand(first, "sgd", 1.0, correct=not correct)
    if rule == "linear":
        assert np.abs(model.get_weights()[0] - other[0]).max() > 1e-3  # the correction matters here


def test_auto_asks_the_optimizer():
    linear = [keras.optimizers.SGD(), tfopt.optimizers.LARS(), tfopt.optimizers.ScheduleFreeSGD()]
    linear.append(tfopt.optimizers.Lookahead(tfopt.optimizers.SGD(0.1)))
    linear.append(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()))
    root = [keras.optimizers.Adam(), tfopt.optimizers.Lion(), tfopt.optimizers.LAMB()]
    for power, optimizers in ((1.0, linear), (0.5, root)):
        for optimizer in optimizers:
            assert C._coupling.power_of("auto", optimizer) == power


def test_composes_with_a_schedule_and_goes_on_in_a_second_fit():
    schedule = keras.optimizers.schedules.ExponentialDecay(RATE, 1, 0.9)
    rates = []

    def watch(batch, logs):
        rates.append(float(model.optimizer.learning_rate))

    model = make(keras.optimizers.Adam(schedule))
    ramp = C.BatchSizeRamp(RAMP, "linear")
    again = copy.deepcopy(ramp)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    watcher = keras.callbacks.LambdaCallback(on_train_batch_begin=watch)
    model.fit(data, verbose=0, callbacks=[ramp, watcher])
    model.fit(data, verbose=0, callbacks=[again, watcher])
    sizes = [4] * 9 + [8] * 3 + [16] * 8
    assert rates == pytest.approx([RATE * 0.9**t * size / 4 for t, size in enumerate(sizes)], rel=1e-5)


@pytest.mark.parametrize("by_accumulation", [False, True])
def test_resume_inside_a_ramp_is_bit_identical(by_accumulation, tmp_path):
    class Stop(Exception):
        pass

    def run(folder, stop_at=None):
        def stop(batch, logs):
            if stop_at is not None and int(model.optimizer.iterations.numpy()) == stop_at:
                raise Stop

        optimizer, batches = tfopt.optimizers.SGD(RATE, momentum=0.9), None
        data = tf.data.Dataset.from_tensor_slices((X, Y))
        options = {}
        if by_accumulation:
            optimizer = tfopt.optimizers.GradientAccumulation(optimizer, RAMP, micro_batch_size=4)
            batches = data.batch(4)
        else:
            batches = tfopt.data.ramped_batches(data, RAMP, epochs=EPOCHS)
            options = {"steps_per_epoch": batches.steps_per_epoch}
        model = make(optimizer)
        resume = C.Resume(folder, None if by_accumulation else batches, every_seconds=0)
        last = keras.callbacks.LambdaCallback(on_train_batch_end=stop)
        callbacks = [resume, C.BatchSizeRamp(RAMP, "linear"), last]
        history = model.fit(batches, epochs=EPOCHS, verbose=0, callbacks=callbacks, **options).history
        return [*model.get_weights(), *history["batch_size"], *history["learning_rate"]]

    whole = run(tmp_path / "whole")
    for update in (9, 11) if by_accumulation else (9, 10, 13):
        with pytest.raises(Stop):
            run(tmp_path / str(update), update)
        again = run(tmp_path / str(update))
        assert all(np.array_equal(a, b) for a, b in zip(whole, again, strict=True)), update


def test_what_does_not_fit_is_refused(two_replicas):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
    with pytest.raises(ValueError, match="scale_learning_rate"):
        C.BatchSizeRamp(RAMP, "quadratic")
    with pytest.raises(TypeError, match="schedule"):
        C.BatchSizeRamp(64)
    other = tfopt.optimizers.GradientAccumulation(keras.optimizers.SGD(0.1), S.Steps({0: 4}), 4)
    with pytest.raises(ValueError, match="the schedule of `GradientAccumulation`"):
        make(tfopt.optimizers.Lookahead(other)).fit(data, verbose=0, callbacks=[C.BatchSizeRamp(RAMP)])
    with pytest.raises(ValueError, match="at most the dataset's 40 samples"):
        tfopt.data.ramped_batches(tf.data.Dataset.from_tensor_slices((X, Y)), S.Steps({0: 4, 20: 64}))
    with two_replicas.scope():
        model = make(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match=r"multiple of the 2 replicas.*rounded_to\(2\)"):
        model.fit(data, verbose=0, callbacks=[C.BatchSizeRamp(S.Steps({0: 4, 8: 5}))])
