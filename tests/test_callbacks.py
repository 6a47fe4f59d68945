"""Decay, monitor, time budget: what they do in every kind of `fit`."""

import copy
import doctest
import importlib
import pkgutil
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt import callbacks as C

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(24, 3)).astype("f"), RNG.normal(size=(24, 1)).astype("f")
STEPS = 6  # of 4 samples


class Traces(keras.layers.Layer):
    """Counts in Python how often it is traced in training."""

    count = 0

    def call(self, x, training=False):
        Traces.count += bool(training)
        return x


class Pieces(keras.utils.PyDataset):
    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        return X[4 * index : 4 * index + 4], Y[4 * index : 4 * index + 4]


def batches():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)


def unknown():
    return batches().filter(lambda x, y: True)


def generator():
    while True:
        yield from Pieces()


def make(optimizer=None, **options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), Traces(), keras.layers.Dense(1)])
    model.compile(optimizer or keras.optimizers.SGD(0.1), "mse", **{"jit_compile": False, **options})
    return model


class Rates(keras.callbacks.Callback):
    """The rate of every update, as the optimizer has it."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(float(self.model.optimizer.learning_rate))


DATA = {
    "arrays": lambda: dict(x=X, y=Y, batch_size=4),
    "tf.data": lambda: dict(x=batches()),
    "unknown": lambda: dict(x=unknown()),
    "generator": lambda: dict(x=generator(), steps_per_epoch=STEPS),
    "PyDataset": lambda: dict(x=Pieces()),
}
OPTIMIZERS = {
    "keras": lambda: keras.optimizers.Adam(1.0),
    "tfopt": lambda: tfopt.optimizers.AdamW(1.0),
    "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0)),
}


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("data", DATA)
def test_decay_by_step_over_two_fits(data):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.9)
    model, seen, decay = make(tfopt.optimizers.SGD(1.0)), Rates(), C.LearningRateDecay(schedule)
    again = copy.deepcopy(decay)  # as keras-tuner does
    model.fit(**DATA[data](), epochs=2, verbose=0, callbacks=[decay, seen])
    expected = [0.5 * 0.9**t for t in range(4 * STEPS)]
    assert seen.seen == pytest.approx(expected[: 2 * STEPS], rel=1e-5)
    traces = Traces.count
    history = model.fit(**DATA[data](), epochs=4, initial_epoch=2, verbose=0, callbacks=[again, seen])
    assert seen.seen == pytest.approx(expected[2 * STEPS :], rel=1e-5)
    assert history.history["learning_rate"] == pytest.approx([expected[3 * STEPS - 1], expected[-1]])
    assert Traces.count == traces


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_decay_on_any_optimizer(optimizer):
    model, seen = make(OPTIMIZERS[optimizer]()), Rates()
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[C.LearningRateDecay(lambda t: 0.5 / (t + 1)), seen])
    assert seen.seen == pytest.approx([0.5 / (t + 1) for t in range(STEPS)])


def test_decay_by_epoch_and_by_sample():
    model, seen = make(), Rates()
    decay = C.LearningRateDecay(lambda epoch: 0.1 * (epoch + 1), unit="epoch")
    model.fit(X, Y, batch_size=4, epochs=5, initial_epoch=3, verbose=0, callbacks=[decay, seen])
    assert seen.seen == pytest.approx([0.4] * STEPS + [0.5] * STEPS)
    sizes = tfopt.schedules.Steps({0: 4, 8: 8})
    model = make()
    decay = C.LearningRateDecay(lambda samples: 1.0 + samples, "sample", batch_size=sizes)
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[decay, seen])
    assert seen.seen == pytest.approx([1, 5, 9, 17, 25, 33])


def test_decay_really_drives_the_update_and_execution_of_several_steps():
    model = make(steps_per_execution=3)
    before = [w.numpy() for w in model.weights]
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[C.LearningRateDecay(lambda t: 0.0)])
    assert all(np.array_equal(a, b) for a, b in zip(before, model.weights))
    seen = Rates()
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[C.LearningRateDecay(lambda t: t), seen])
    assert seen.seen == [6.0, 9.0]


def test_decay_under_a_strategy(two_replicas):
    with two_replicas.scope():
        model = make()
    history = model.fit(X, Y, batch_size=4, verbose=0, callbacks=[C.LearningRateDecay(lambda t: 1 / (t + 1))])
    assert history.history["learning_rate"] == pytest.approx([1 / STEPS])


def test_decay_refuses_what_it_cannot_do():
    model = make(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 5)))
    with pytest.raises(TypeError, match="numeric learning rate"):
        model.fit(X, Y, verbose=0, callbacks=[C.LearningRateDecay(lambda t: 1.0)])
    with pytest.raises(ValueError, match="unit"):
        C.LearningRateDecay(lambda t: 1.0, unit="minute")
    with pytest.raises(ValueError, match="batch_size"):
        C.LearningRateDecay(lambda t: 1.0, unit="sample")
    with pytest.raises(TypeError, match="schedule"):
        C.LearningRateDecay(0.1)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("data", DATA)
def test_monitor_changes_nothing_and_counts_right(data):
    plain, watched, monitor = make(), make(), C.TrainingMonitor(norms_every=2)
    plain.fit(**DATA[data](), epochs=2, verbose=0, shuffle=False)
    history = watched.fit(**DATA[data](), epochs=2, verbose=0, shuffle=False, callbacks=[monitor]).history
    assert all(np.array_equal(a, b) for a, b in zip(plain.get_weights(), watched.get_weights()))
    assert history["batch_size"] == [4.0, 4.0]
    assert all(0 <= wait <= 1 for wait in history["data_wait"])
    assert history["learning_rate"] == pytest.approx([0.1, 0.1])
    traces = Traces.count
    again = watched.fit(**DATA[data](), verbose=0, callbacks=[monitor]).history
    assert Traces.count == traces and again["gradient_norm"][0] > 0
    watched.fit(**DATA[data](), verbose=0)
    assert "make_train_function" not in vars(watched) and Traces.count == traces


@pytest.mark.parametrize(
    "options", [dict(jit_compile=True), dict(run_eagerly=True), dict(steps_per_execution=3)]
)
def test_monitor_in_every_mode(options):
    options = {"jit_compile": False, **options}
    model = make(**options)
    monitor = C.TrainingMonitor(norms_every=1)
    history = model.fit(batches(), epochs=2, verbose=0, callbacks=[monitor, copy.deepcopy(monitor)]).history
    assert history["batch_size"] == [4.0, 4.0] and history["gradient_norm"][0] > 0


def test_monitor_counts_right_after_an_interruption():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model, monitor = make(), C.TrainingMonitor(norms_every=1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(np.ones((8, 3)), np.ones(8), batch_size=4, verbose=0, callbacks=[monitor, Stop()])
    model.compile("sgd", "mse", jit_compile=False)
    unfreeze = C.Unfreeze({0: 1.0})  # has the training step made anew, with all that observe it
    history = model.fit(np.ones((8, 3)), np.ones(8), batch_size=4, verbose=0, callbacks=[monitor, unfreeze])
    assert history.history["batch_size"] == [4]
    assert int(monitor._counters.samples) == 4  # of both batches, the first one warms up


def test_norms_equal_numpy():
    model = make()
    kernel, bias = (w.numpy().astype("f8") for w in model.weights)
    history = model.fit(
        X, Y, batch_size=24, shuffle=False, verbose=0, callbacks=[C.TrainingMonitor(1)]
    ).history
    error = X @ kernel + bias - Y
    gradient = np.concatenate([(2 * X.T @ error / 24).ravel(), [2 * error.mean()]])
    weights = np.concatenate([kernel.ravel(), bias]) - 0.1 * gradient
    assert history["gradient_norm"][0] == pytest.approx(np.linalg.norm(gradient), rel=1e-5)
    assert history["update_norm"][0] == pytest.approx(0.1 * np.linalg.norm(gradient), rel=1e-4)
    assert history["weight_norm"][0] == pytest.approx(np.linalg.norm(weights), rel=1e-5)


def test_monitor_under_a_strategy(two_replicas):
    with two_replicas.scope():
        model = make()
    history = model.fit(batches(), epochs=2, verbose=0, callbacks=[C.TrainingMonitor(1)]).history
    single = make().fit(batches(), epochs=2, verbose=0, callbacks=[C.TrainingMonitor(1)]).history
    assert history["batch_size"] == [4.0, 4.0]
    assert history["gradient_norm"] == pytest.approx(single["gradient_norm"], rel=1e-5)


def test_monitor_tells_slow_data_from_slow_training():
    def slow(x, y):
        time.sleep(0.03)
        return x, y

    types = (tf.float32, tf.float32)
    data = batches().map(lambda x, y: tf.numpy_function(slow, (x, y), types))
    data = data.map(lambda x, y: (tf.ensure_shape(x, (None, 3)), tf.ensure_shape(y, (None, 1))))
    model = make()
    starved = model.fit(data, epochs=2, verbose=0, callbacks=[C.TrainingMonitor()]).history
    assert starved["data_wait"][1] > 0.7
    assert starved["images_per_second"][1] < 4 / 0.03

    class Sleepy(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            time.sleep(0.03)

    fed = model.fit(batches().cache(), epochs=2, verbose=0, callbacks=[C.TrainingMonitor(), Sleepy()]).history
    assert fed["data_wait"][1] < 0.3


def test_time_budget_stops_within_the_epoch():
    class Count(keras.callbacks.Callback):
        batches = 0

        def on_train_batch_end(self, batch, logs=None):
            self.batches += 1
            time.sleep(0.05)

    count, budget = Count(), C.TimeBudget(0.12)
    make().fit(X, Y, batch_size=1, epochs=50, verbose=0, callbacks=[count, budget])
    assert 1 <= count.batches <= 4
    budget.set_state({"elapsed": 100.0})
    assert budget.get_state()["elapsed"] >= 100.0
    with pytest.raises(ValueError, match="seconds"):
        C.TimeBudget(0)


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(C.__path__, "tfopt.callbacks.")])
def test_docstring_examples_run(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"keras": keras, "np": np, "tf": tf, "tfopt": tfopt}
    failed, _ = doctest.testmod(importlib.import_module(module), None, names, optionflags=doctest.ELLIPSIS)
    assert failed == 0


def keras_2(name):
    """An instance of a user's class below one of Keras 2, whose package need not be there."""
    base = type(name, (), {"__module__": "tf_keras.src.engine", "__call__": lambda self, x: x})
    return type(f"My{name}", (base,), {})()


def test_objects_of_keras_2_are_named_with_the_way_out():
    for callback in (C.WeightAveraging(), C.Resume("unused"), C.LearningRateFinder(), C.Unfreeze({0: 1.0})):
        with pytest.raises(TypeError, match=r"a model of Keras 3.*belongs to Keras 2 \(tf_keras.*`keras`"):
            callback.set_model(keras_2("Sequential"))
    for refused in (
        lambda: tfopt.optimizers.discriminative(keras_2("Sequential")),
        lambda: tfopt.models.SharpnessAware(keras_2("Sequential")),
        lambda: tfopt.optimizers.Lookahead(keras_2("Adam")),
        lambda: tfopt.optimizers.Adam(keras_2("CosineDecay")),
    ):
        with pytest.raises(TypeError, match="belongs to Keras 2"):
            refused()
