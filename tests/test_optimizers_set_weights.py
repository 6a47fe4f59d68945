"""Weights that the user sets between updates: state that is made from the weights starts there."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt.optimizers as to

RATE = 0.05
MAKERS = {
    "Lookahead": lambda: to.Lookahead(to.SGD(RATE), sync_period=2),
    "Lookahead-Keras": lambda: to.Lookahead(keras.optimizers.SGD(RATE), sync_period=2),
    "ScheduleFreeSGD": lambda: to.ScheduleFreeSGD(RATE),
    "stack": lambda: to.Lookahead(to.GradientAccumulation(to.Cautious(to.SGD(RATE)), 2), sync_period=2),
    "groups": lambda: to.ParameterGroups(to.ScheduleFreeSGD(RATE), [to.Group("bias", 0.5)]),
}
NAMES = list(MAKERS)


def data(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(32, 5)).astype("float32"), rng.normal(size=(32, 2)).astype("float32")


def network(optimizer, seed=1, **options):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)])
    model.compile(optimizer, "mse", **options)
    return model


def fit(model, epochs=2):
    model.fit(*data(), batch_size=8, epochs=epochs, shuffle=False, verbose=0)  # 4 updates an epoch
    return model.get_weights()


def loop(model, steps=4):
    x, y = (tf.constant(each) for each in data())
    for _ in range(steps):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(y - model(x)))
        model.optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return model.get_weights()


def assert_equal(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def assert_close(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "train"), [*((name, loop) for name in NAMES), ("groups", fit)])
def test_training_starts_from_the_weights_that_were_set(name, train):
    start = network("sgd", seed=7).get_weights()
    new = network(MAKERS[name](), seed=7)
    used = network(MAKERS[name]())
    train(used)
    used.set_weights(start)
    assert_close(train(used), train(new))


@pytest.mark.parametrize("name", ["Lookahead", "ScheduleFreeSGD"])
def test_an_average_swapped_in_and_out_changes_nothing(name):
    straight, swapped = network(MAKERS[name]()), network(MAKERS[name]())
    loop(straight)
    weights = loop(swapped)
    swapped.set_weights([np.zeros_like(weight) for weight in weights])
    swapped.set_weights([weight + 1 for weight in weights])
    swapped.set_weights(weights)
    assert_equal(loop(swapped), loop(straight))


def test_early_stopping_restores_what_the_next_fit_starts_from():
    model = network(to.Lookahead(to.SGD(RATE), sync_period=3))
    stop = keras.callbacks.EarlyStopping("loss", mode="max", patience=3, restore_best_weights=True)
    model.fit(*data(), batch_size=8, epochs=5, shuffle=False, verbose=0, callbacks=[stop])
    start = model.get_weights()
    model.optimizer.learning_rate = 0.0
    assert_equal(fit(model), start)


def test_load_weights_is_noticed(tmp_path):
    other, model = network("sgd", seed=9), network(to.ScheduleFreeAdamW(RATE))
    keras.Sequential([keras.Input((5,)), *other.layers]).save_weights(tmp_path / "other.weights.h5")
    loop(model)
    model.load_weights(tmp_path / "other.weights.h5")
    for average, weight in zip(
        model.optimizer.average_values(model.trainable_variables), other.get_weights()
    ):
        np.testing.assert_allclose(average, weight, atol=1e-6)


def test_an_average_of_use_ema_starts_from_the_weights_that_were_set():
    model = network(to.Adam(0.0, use_ema=True))
    loop(model)
    start = network("sgd", seed=3).get_weights()
    model.set_weights(start)
    assert_equal(model.optimizer.average_values(model.trainable_variables), start)


@pytest.mark.parametrize("first", ["weights", "state"])
@pytest.mark.parametrize("name", ["Lookahead", "ScheduleFreeSGD"])
def test_a_checkpoint_restored_in_either_order_goes_on_as_it_was(name, first):
    straight, resumed = network(MAKERS[name]()), network(MAKERS[name](), seed=5)
    loop(straight)
    loop(resumed, steps=1)
    weights = straight.get_weights()
    state = [variable.numpy() for variable in straight.optimizer.variables]
    steps = [lambda: resumed.set_weights(weights), lambda: resumed.optimizer.set_weights(state)]
    for step in steps if first == "weights" else steps[::-1]:
        step()
    assert_equal(loop(resumed), loop(straight))


@pytest.mark.parametrize("name", ["Lookahead-Keras", "groups"])
def test_weights_set_after_a_file_was_loaded_are_noticed(name, tmp_path):
    model = network(MAKERS[name]())
    loop(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    start = network("sgd", seed=7).get_weights()
    loaded.set_weights(start)
    assert_close(loop(loaded), loop(network(MAKERS[name](), seed=7)))


def test_only_the_elements_that_change_start_anew():
    optimizer = to.Lookahead(to.SGD(1.0), sync_period=2)
    weight = keras.Variable([1.0, 2.0])
    optimizer.apply([tf.constant([0.5, 0.5])], [weight])
    weight.assign([0.5, 7.0])  # as clipping does after every step
    optimizer.apply([tf.constant([0.0, 0.0])], [weight])
    np.testing.assert_allclose(weight, [0.75, 7.0])


def test_raw_variables_and_assign_add_are_noticed():
    optimizer = to.Lookahead(to.SGD(0.0), sync_period=1)
    weight = tf.Variable([1.0, 2.0])
    optimizer.apply([tf.ones(2)], [weight])
    weight.assign_add([1.0, 1.0])
    optimizer.apply([tf.ones(2)], [weight])
    np.testing.assert_allclose(weight, [2.0, 3.0])


def test_a_perturbation_that_is_taken_back_changes_nothing():
    optimizer = to.Lookahead(to.SGD(1.0), sync_period=2)
    weight = keras.Variable([1.0])
    optimizer.apply([tf.constant([0.5])], [weight])
    weight.value.assign_add([9.0])
    weight.value.assign([0.5])
    optimizer.apply([tf.constant([0.0])], [weight])
    np.testing.assert_allclose(weight, [0.75])


def test_replicas_notice_it_too(two_replicas):
    with two_replicas.scope():
        model = network(to.Lookahead(to.SGD(RATE), sync_period=3))
    fit(model, epochs=1)
    start = network("sgd", seed=7).get_weights()
    model.set_weights(start)
    model.optimizer.learning_rate = 0.0
    assert_equal(fit(model), start)
