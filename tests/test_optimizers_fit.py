"""The contract in `fit`: graph, eager, XLA, two replicas, files, batches of unknown number.

One case of each kind by default; every case with the `full` marker.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from catalogue import CASES, Case
from contract import close, values

import tfopt.optimizers as to

EVERY = [case if case.kind else pytest.param(case, marks=pytest.mark.full) for case in CASES]
X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = (X @ np.random.default_rng(1).normal(size=(4, 3))).astype("float32")
BATCH, EPOCHS = 8, 3


def linear_model(optimizer, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(optimizer, "mse", **options)
    return model


def train(model, epochs=EPOCHS):
    model.fit(X, Y, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0)
    return model


def gradient(step, weights):
    """Of the mean squared error of the linear model, at the batch of a 1-based step."""
    kernel, bias = weights
    start = (step - 1) * BATCH % len(X)
    x, y = X[start : start + BATCH].astype(np.float64), Y[start : start + BATCH]
    error = 2 * (x @ kernel + bias - y) / y.size
    return [x.T @ error, error.sum(0)]


def replicas_are_equal(model, optimizer):
    for variable in model.weights + optimizer.variables:
        copies = [copy.numpy() for copy in variable.value.values]
        np.testing.assert_array_equal(*copies, err_msg=variable.path)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fit_equals_the_reference(case: Case):
    model = linear_model(case.make(), jit_compile=False)
    start = values(model.weights)
    steps = EPOCHS * len(X) // BATCH
    close(train(model).weights, case.reference(start, gradient, steps), case.fit_tolerance)
    assert int(model.optimizer.iterations) == steps / case.calls_per_update


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_eager_and_xla_equal_the_graph(case: Case):
    graph = train(linear_model(case.make(), jit_compile=False))
    eager = train(linear_model(case.make(), run_eagerly=True))
    compiled = train(linear_model(case.make(), jit_compile=True))
    close(eager.weights, graph.weights, case.fit_tolerance)
    close(compiled.weights, graph.weights, case.fit_tolerance)


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_two_replicas_equal_one_device(case: Case, two_replicas):
    one = train(linear_model(case.make(), jit_compile=False))
    with two_replicas.scope():
        both = linear_model(case.make())
    train(both)
    close(both.weights, one.weights, case.fit_tolerance)
    replicas_are_equal(both, both.optimizer)


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_a_saved_model_trains_on_identically(case: Case, tmp_path):
    straight = train(linear_model(case.make(), jit_compile=False))
    straight.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.save_weights(tmp_path / "again.weights.h5")
    third = linear_model(type(loaded.optimizer).from_config(loaded.optimizer.get_config()))
    third.optimizer.build(third.trainable_variables)
    third.load_weights(tmp_path / "again.weights.h5")
    for model in (straight, loaded, third):
        train(model, 1)
    for x, y, z in zip(*(values(model.weights) for model in (straight, loaded, third)), strict=True):
        np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(x, z)


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_unknown_cardinality_runs_no_phantom_step(case: Case):
    plain = train(linear_model(case.make(), jit_compile=False))
    model = linear_model(case.make(), jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH).filter(lambda x, y: True)
    model.fit(data, epochs=EPOCHS, verbose=0)
    assert int(model.optimizer.iterations) == int(plain.optimizer.iterations)
    close(model.weights, plain.weights, 1e-7)


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_loss_scaling_changes_nothing(case: Case):
    plain = train(linear_model(case.make(), jit_compile=False))
    scaled = train(linear_model(keras.optimizers.LossScaleOptimizer(case.make()), jit_compile=False))
    close(scaled.weights, plain.weights, case.fit_tolerance)


@pytest.mark.parametrize("option", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_clipping_acts_on_the_sum_of_the_replicas(option, two_replicas):
    def make():
        return to.SGD(0.1, **{option: 0.05})

    one = train(linear_model(make(), jit_compile=False))
    keras_own = train(linear_model(keras.optimizers.SGD(0.1, **{option: 0.05}), jit_compile=False))
    with two_replicas.scope():
        both = linear_model(make())
    close(train(both).weights, one.weights, 1e-6)
    close(one.weights, keras_own.weights, 1e-6)


def test_ema_equals_keras_and_works_on_replicas(two_replicas):
    options = {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 5}
    ours = train(linear_model(to.AdamW(0.01, **options), jit_compile=False))
    keras_own = train(linear_model(keras.optimizers.AdamW(0.01, **options), jit_compile=False))
    with two_replicas.scope():
        both = linear_model(to.AdamW(0.01, **options))
    close(ours.weights, keras_own.weights, 1e-6)
    close(train(both).weights, ours.weights, 1e-6)


def test_excluded_variables_do_not_decay_also_after_loading(tmp_path):
    optimizer = to.AdamW(0.0, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    optimizer.learning_rate = 0.1
    model = train(linear_model(optimizer), 1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for trained in (model, loaded):
        trained.optimizer.learning_rate = 1e-6
        trained.layers[0].kernel.assign(tf.ones((4, 3)))
        train(trained, 1)
        assert loaded.optimizer.undecayed == (0,)
        np.testing.assert_allclose(trained.layers[0].kernel, 1.0, atol=1e-4)
    with pytest.raises(ValueError, match="before the optimizer is built"):
        loaded.optimizer.exclude_from_weight_decay(var_names=["bias"])
