"""What sets weights for a while, or with their state, leaves state that is made from the weights alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_optimizers_set_weights import assert_close, assert_equal, loop

import tfopt.optimizers as to
from tfopt import callbacks as C
from tfopt._batch_norm import reestimate
from tfopt.callbacks import _snapshot
from tfopt.callbacks._checkpoint import CheckpointFolder
from tfopt.models import SharpnessAware
from tfopt.recipes.best import KeepBest

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 5)).astype("float32"), RNG.normal(size=(32, 2)).astype("float32")
MAKERS = {
    "Lookahead": lambda: to.Lookahead(to.SGD(0.05), sync_period=2),
    "ScheduleFreeSGD": lambda: to.ScheduleFreeSGD(0.05),
    "use_ema": lambda: to.SGD(0.05, use_ema=True),
    "Prodigy": lambda: to.Prodigy(),
}


def network(name, seed=1, **options):
    """A model one part of which gets no gradient: its weights are the same before and after training."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((5,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(4, "tanh")(inputs))
    idle = keras.layers.Rescaling(0.0)(keras.layers.Dense(2, bias_initializer="ones")(x))
    model = keras.Model(inputs, keras.layers.Add()([keras.layers.Dense(2)(x), idle]))
    model.compile(MAKERS[name](), "mse", jit_compile=False, **options)
    return model


def find_a_rate(model, folder):
    C.LearningRateFinder(1e-3, 1e-1, steps=10).test(model, X, y=Y, batch_size=8)


def go_back(model, folder):
    nan = np.full((8, 5), np.nan, "float32")
    model.fit(nan, Y[:8], batch_size=8, verbose=0, callbacks=[C.NanPolicy("rollback", every=1)])


def restore_twice(model, folder):
    variables, strategy = _snapshot.variables_of(model, metrics=False), model.distribute_strategy
    values = _snapshot.read_variables(variables, strategy)
    loop(model)
    for _ in range(2):  # as `Resume` does inside an epoch
        _snapshot.write_variables(variables, values, strategy)


def resume_what_has_ended(model, folder):
    variables = _snapshot.variables_of(model, metrics=False)
    values = _snapshot.read_variables(variables, model.distribute_strategy)
    loop(model)
    state = {"epoch": 1, "executions": 0, "stopped": True, "callbacks": [["History", {}]]}
    CheckpointFolder(folder, 1).save(0, {**state, "variables": values})
    model.fit(X, Y, batch_size=32, verbose=0, callbacks=[C.Resume(folder)])


def renew_statistics(model, folder):
    reestimate(model, tf.data.Dataset.from_tensor_slices((X, Y)).batch(8))


def evaluate_with(model, *callbacks):
    model.evaluate(X, Y, batch_size=32, callbacks=list(callbacks), verbose=0)


def evaluate_with_the_average(model, folder):
    averaging = C.WeightAveraging("ema", keep=False)
    rate = float(model.optimizer.learning_rate)
    model.optimizer.learning_rate = 0.0
    variables = _snapshot.variables_of(model, metrics=False)
    values = _snapshot.read_variables(variables, model.distribute_strategy)
    model.fit(X, Y, batch_size=32, validation_data=(X, Y), callbacks=[averaging], verbose=0)
    evaluate_with(model, averaging)
    with C.averaged(model):
        model.save(folder / "average.keras")
    _snapshot.write_variables(variables, values, model.distribute_strategy)
    model.optimizer.learning_rate = rate


def swap_with_keras(model, folder):
    swap = keras.callbacks.SwapEMAWeights()
    for _ in range(2):
        evaluate_with(model, swap)


MEANWHILE = [find_a_rate, go_back, restore_twice, resume_what_has_ended, renew_statistics]
MEANWHILE += [evaluate_with_the_average]


CASES = [(name, each) for name in MAKERS for each in MEANWHILE] + [("use_ema", swap_with_keras)]
CASES.remove(("use_ema", go_back))  # Keras ends every `fit` with the average in the model
QUICK = [("Lookahead", restore_twice), ("ScheduleFreeSGD", find_a_rate), ("use_ema", swap_with_keras)]


@pytest.mark.parametrize(
    ("name", "meanwhile"),
    [case if case in QUICK else pytest.param(*case, marks=pytest.mark.full) for case in CASES],
)
def test_state_stays_and_weights_set_afterwards_are_noticed(name, meanwhile, tmp_path):
    model = network(name)
    trained = loop(model)
    state = [variable.numpy() for variable in model.optimizer.variables]
    meanwhile(model, tmp_path)
    check = assert_close if meanwhile is swap_with_keras else assert_equal  # which swaps by sums
    check([variable.numpy() for variable in model.optimizer.variables], state)
    check([v.numpy() for v in model.trainable_variables], trained_of(model, trained))
    start = network(name, seed=7).get_weights()
    model.set_weights(start)
    for variable, followers in zip(
        model.trainable_variables, model.optimizer._followers._states, strict=True
    ):
        for follower, first in followers:
            np.testing.assert_array_equal(follower.numpy(), first(variable.numpy()))
    if name in ("Lookahead", "ScheduleFreeSGD"):  # the others have moments, which stay
        assert_close(loop(model), loop(network(name, seed=7)))


def trained_of(model, weights):
    return [w for w, v in zip(weights, model.weights, strict=True) if v.trainable]


def test_weights_swapped_by_keras_are_the_average_of_use_ema():
    def run(optimizer):
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
        model.compile(optimizer, "mse", jit_compile=False)
        swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
        options = {"validation_data": (X, Y), "shuffle": False, "batch_size": 8, "verbose": 0}
        losses = model.fit(X, Y, epochs=3, callbacks=[swap], **options).history["val_loss"]
        return losses, model.get_weights()

    options = {"use_ema": True, "ema_momentum": 0.5}
    (losses, weights), (expected, kept) = (
        run(to.SGD(0.05, **options)),
        run(keras.optimizers.SGD(0.05, **options)),
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert_close(weights, kept)


@pytest.mark.full
@pytest.mark.parametrize("name", ["Lookahead", "ScheduleFreeSGD"])
def test_sharpness_aware_steps_in_eager_mode_equal_those_in_a_graph(name):
    models = [network(name) for _ in range(2)]
    for eager, model in enumerate(models):
        wrapper = SharpnessAware(model)
        wrapper.compile(model.optimizer, "mse", run_eagerly=bool(eager))
        wrapper.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(*(model.optimizer.variables for model in models), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["Lookahead", pytest.param("ScheduleFreeSGD", marks=pytest.mark.full)])
def test_the_next_fit_starts_from_the_best_weights_that_keep_best_restored(name):
    model = network(name)
    keep = KeepBest(lambda logs, prefix="val_": (logs[f"{prefix}loss"],))  # the largest loss: the first one
    options = {"validation_data": (X, Y), "shuffle": False, "verbose": 0}
    losses = model.fit(X, Y, epochs=3, callbacks=[keep], **options).history["val_loss"]
    assert losses[0] > losses[-1]
    start = [v.numpy() for v in model.trainable_variables]
    model.optimizer.learning_rate = 0.0
    model.fit(X, Y, epochs=2, **options)
    assert_equal([v.numpy() for v in model.trainable_variables], start)
    if name == "Lookahead":
        assert_equal([v.numpy() for v in model.optimizer._slow], start)


def test_an_equal_variable_does_not_keep_the_sum_of_weights_from_starting_anew():
    model = network("ScheduleFreeSGD")
    trained = loop(model)
    weight_sum = next(v for v in model.optimizer.variables if v.name == "weight_sum")
    before = float(weight_sum)
    model.set_weights(trained)
    assert float(weight_sum) == before > 0
    other = [w if v.name == "bias" else w + 1 for w, v in zip(trained, model.weights, strict=True)]
    model.set_weights(other)
    assert float(weight_sum) == 0
    model.set_weights(trained)
    assert float(weight_sum) == before


def test_a_loaded_state_ends_the_memory_of_the_one_before():
    model = network("ScheduleFreeSGD")
    trained, state = loop(model), [v.numpy() for v in model.optimizer.variables]
    weight_sum = next(v for v in model.optimizer.variables if v.name == "weight_sum")
    model.set_weights([w + 1 for w in trained])
    model.set_weights([w / 2 for w in trained]), model.optimizer.set_weights(state)  # a checkpoint
    model.set_weights([w + 2 for w in trained])
    assert float(weight_sum) == 0
