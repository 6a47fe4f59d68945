"""Callbacks on models that several optimizers train: GAN, actor-critic, two towers, `MultiOptimizer`."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt import callbacks as C
from tfopt import optimizers as O
from tfopt import schedules
from tfopt._optimizers_in_use import optimizers_in_use

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 4)).astype("f"), RNG.normal(size=(32, 1)).astype("f")


def dense(*units):
    return keras.Sequential([keras.layers.Dense(each, "tanh") for each in units])


def descend(optimizer, tape, loss, part):
    optimizer.apply_gradients(zip(tape.gradient(loss, part.trainable_variables), part.trainable_variables))


class GAN(keras.Model):
    """As in the Keras guide: no `call`, optimizers given to `compile`, noise from a seed generator."""

    def __init__(self):
        super().__init__()
        self.g, self.d, self.seeds = dense(8, 4), dense(8, 1), keras.random.SeedGenerator(3)

    def compile(self, g_opt, d_opt):
        super().compile()
        self.g_opt, self.d_opt = g_opt, d_opt

    def train_step(self, data):
        real = data[0]
        for _ in range(2):
            noise = keras.random.normal(tf.shape(real), seed=self.seeds)
            with tf.GradientTape() as tape:
                d_loss = tf.reduce_mean(self.d(self.g(noise))) - tf.reduce_mean(self.d(real))
            descend(self.d_opt, tape, d_loss, self.d)
        with tf.GradientTape() as tape:
            g_loss = -tf.reduce_mean(self.d(self.g(noise)))
        descend(self.g_opt, tape, g_loss, self.g)
        return {"g_loss": g_loss, "d_loss": d_loss}


class ActorCritic(keras.Model):
    """Compiled parts, a loop over them, and a temperature that is a plain `tf.Variable`."""

    def __init__(self, first, second):
        super().__init__()
        self.actor, self.critic = dense(4, 1), dense(4, 1)
        self.actor.compile(first)
        self.critic.compile(second)
        self.temperature, self.tuner = tf.Variable(1.0), keras.optimizers.SGD(0.1)

    def train_step(self, data):
        x, y = data
        for part in (self.actor, self.critic):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((part(x) * self.temperature - y) ** 2)
            descend(part.optimizer, tape, loss, part)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.actor(x) * self.temperature - y) ** 2)
        self.tuner.apply([tape.gradient(loss, self.temperature)], [self.temperature])
        return {"loss": loss}


class TwoTowers(keras.Model):
    """The compiled optimizer trains one tower, an attribute the other."""

    def __init__(self, document_optimizer):
        super().__init__()
        self.query, self.document, self.optimizers = dense(4), dense(4), {"document": document_optimizer}

    def call(self, x):
        return tf.reduce_sum(self.query(x) * self.document(x), -1, keepdims=True)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_mean((self(x) - y) ** 2)
        descend(self.optimizer, tape, loss, self.query)
        descend(self.optimizers["document"], tape, loss, self.document)
        return {"loss": loss}


def gan():
    model = GAN()
    model.compile(O.Adam(0.01), keras.optimizers.SGD(0.02, momentum=0.9))
    return model


def actor_critic():
    model = ActorCritic(O.Lookahead(O.Adam(0.01), sync_period=3), keras.optimizers.Adam(0.02))
    model.compile()
    return model


def two_towers():
    model = TwoTowers(O.GradientAccumulation(O.SGD(0.02), 3))
    model.compile(O.Adam(0.01))
    return model


def several():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(1, name="head")])
    parts = keras.optimizers.OptimizerMap(
        keras.optimizers.SGD(0.01, name="low"), {".*head/.*": keras.optimizers.SGD(0.02, name="high")}
    )
    model.compile(O.GradientAccumulation(keras.optimizers.MultiOptimizer(parts), 2), "mse")
    return model


MODELS = {"gan": gan, "actor_critic": actor_critic, "two_towers": two_towers}
NAMES = {
    "gan": ["d_opt", "g_opt"],
    "actor_critic": ["actor.optimizer", "critic.optimizer", "tuner"],
    "two_towers": ["optimizer", "optimizers.document"],
}


def fit(model, *callbacks, epochs=2):
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    return model.fit(data, epochs=epochs, verbose=0, callbacks=list(callbacks)).history


@pytest.mark.parametrize("name", MODELS)
def test_the_optimizers_in_use_are_found_by_the_names_of_their_attributes(name):
    assert sorted(optimizers_in_use(MODELS[name]())) == NAMES[name]


def test_an_unused_optimizer_of_keras_is_not_in_use():
    model = keras.Sequential([keras.layers.Dense(1)])
    assert optimizers_in_use(model) == {}
    model.compile("adam")
    model.unused = keras.optimizers.SGD()  # `fit` of such a model knows the compiled one only
    assert list(optimizers_in_use(model)) == ["optimizer"]


def train(name, folder, stop=None, leave=None):
    keras.utils.set_random_seed(0)
    model = MODELS[name]()

    def begin(epoch, logs=None):
        if epoch == stop:
            leave()

    callbacks = [C.Resume(folder, every_seconds=0), C.PlateauDecay("loss", mode="max", patience=1)]
    averaging = C.WeightAveraging(decay=0.9, keep=False)
    fit(model, *callbacks, averaging, keras.callbacks.LambdaCallback(on_epoch_begin=begin), epochs=4)
    plain = model.temperature.numpy() if name == "actor_critic" else 0.0
    with C.averaged(model):
        return [*model.get_weights(), plain, *(o.learning_rate for o in optimizers_in_use(model).values())]


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[pytest.mark.full] * (each != "gan")) for each in MODELS]
)
def test_a_stopped_run_goes_on_bit_identical(name, tmp_path):
    def leave():
        raise KeyboardInterrupt

    whole = train(name, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(name, tmp_path / "broken", stop=2, leave=leave)
    for a, b in zip(whole, train(name, tmp_path / "broken")):
        np.testing.assert_array_equal(a, b)


@pytest.mark.full
@pytest.mark.parametrize("name", MODELS)
def test_a_killed_run_goes_on_bit_identical(name, tmp_path):
    program = f"import os; from tests import {__name__.split('.')[-1]} as t; "
    program += f"t.train({name!r}, {str(tmp_path / 'broken')!r}, 2, lambda: os._exit(9))"
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = {**os.environ, "PYTHONPATH": root}
    assert subprocess.run([sys.executable, "-c", program], cwd=root, env=environment).returncode == 9
    for a, b in zip(train(name, tmp_path / "whole"), train(name, tmp_path / "broken")):
        np.testing.assert_array_equal(a, b)


def test_plateau_decay_lowers_all_rates_and_logs_each():
    model = gan()
    history = fit(model, C.PlateauDecay("g_loss", patience=1, min_delta=99.0), epochs=3)
    np.testing.assert_allclose(history["learning_rate_g_opt"], [0.01, 0.01, 0.005])
    np.testing.assert_allclose(history["learning_rate_d_opt"], [0.02, 0.02, 0.01])


def test_learning_rate_decay_needs_a_schedule_for_each_name():
    model = gan()
    with pytest.raises(ValueError, match=r"\['d_opt', 'g_opt'\]"):
        fit(model, C.LearningRateDecay(lambda step: 0.1))
    with pytest.raises(ValueError, match="of the optimizers"):
        fit(model, C.LearningRateDecay({"generator": lambda step: 0.1}))
    history = fit(model, C.LearningRateDecay({"g_opt": lambda step: 1e-3 * step}))
    np.testing.assert_allclose(history["learning_rate_g_opt"], [3e-3, 7e-3], rtol=1e-6)
    np.testing.assert_allclose(history["learning_rate_d_opt"], [0.02, 0.02], rtol=1e-6)


def test_batch_size_ramp_asks_for_the_clock_if_optimizers_count_differently():
    ramp = schedules.Steps({0: 8, 32: 32})
    with pytest.raises(ValueError, match="`clock` must be given"):
        fit(gan(), C.BatchSizeRamp(ramp, "auto"))
    history = fit(gan(), C.BatchSizeRamp(ramp, "auto", clock="g_opt"))
    assert history["batch_size"] == [8, 32]
    np.testing.assert_allclose(history["learning_rate_g_opt"], [0.01, 0.02])  # square root, Adam
    np.testing.assert_allclose(history["learning_rate_d_opt"], [0.02, 0.08])  # linear, SGD


def test_training_monitor_shows_a_rate_and_a_gradient_norm_of_each():
    history = fit(gan(), C.TrainingMonitor(norms_every=1))
    norms = [history[f"gradient_norm_{name}"][0] for name in ("g_opt", "d_opt")]
    assert min(norms) > 0 and history["gradient_norm"][0] > max(norms)
    assert history["learning_rate_g_opt"][0] == pytest.approx(0.01)


def test_weight_averaging_averages_a_model_without_compiled_optimizer():
    model = gan()
    fit(model, C.WeightAveraging(decay=0.9, keep=False))
    raw = model.get_weights()
    with C.averaged(model):
        assert all(np.abs(a - b).max() > 0 for a, b in zip(raw, model.get_weights()))


@pytest.mark.parametrize("callback", [C.LearningRateFinder(), C.GradientNoiseScale(), C.NoiseScaleRamp(8, 4)])
def test_what_acts_on_one_optimizer_refuses_several_with_their_names(callback):
    with pytest.raises(ValueError, match=r"\['d_opt', 'g_opt'\]"):
        fit(gan(), callback)


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="came with Keras 3.15")
def test_parts_of_an_accumulated_multi_optimizer_have_their_own_rates_and_norms():
    monitor, ramp = (
        C.TrainingMonitor(norms_every=1),
        C.BatchSizeRamp(schedules.Steps({0: 16, 32: 32}), "linear"),
    )
    history = fit(several(), monitor, ramp, C.PlateauDecay("loss", patience=9))
    assert history["learning_rate_high"] == pytest.approx([0.02, 0.04])
    assert history["learning_rate_low"] == pytest.approx([0.01, 0.02])
    assert history["gradient_norm_high"][0] > 0 and history["gradient_norm_low"][0] > 0


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="came with Keras 3.15")
def test_parts_with_equal_names_are_numbered():
    model = several()
    for part in model.optimizer.inner_optimizer.optimizers:
        part.name = "sgd"
    assert list(C._rate.rated_optimizers(model)) == ["sgd", "sgd_1"]


HIDDEN = keras.optimizers.SGD(0.1)


class Hidden(keras.Model):
    def __init__(self):
        super().__init__()
        self.part = dense(1)

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.part(data[0]) - data[1]) ** 2)
        descend(HIDDEN, tape, loss, self.part)
        return {"loss": loss}


ON_RATES = [
    C.PlateauDecay("loss"),
    C.LearningRateDecay(lambda step: 0.1),
    C.BatchSizeRamp(schedules.Steps({0: 8}), "linear"),
    C.TrainingMonitor(),
    C.WeightAveraging(),
    C.LearningRateFinder(),
]


@pytest.mark.parametrize("callback", ON_RATES, ids=lambda each: type(each).__name__)
def test_an_optimizer_that_cannot_be_found_is_noticed(callback):
    model = Hidden()
    model.compile()
    HIDDEN.built = False
    with pytest.raises(ValueError, match="made no update in this epoch"):
        fit(model, callback)


def test_resume_warns_of_an_optimizer_that_it_cannot_find(tmp_path, caplog):
    model = Hidden()
    model.compile()
    HIDDEN.built = False
    fit(model, C.Resume(tmp_path))
    assert "its state is not saved" in caplog.text
