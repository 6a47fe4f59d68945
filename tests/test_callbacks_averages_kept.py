"""WeightAveraging over more `fit` calls, next to EarlyStopping, and next to what saves the wrong weights."""

import keras
import numpy as np
import pytest

from tfopt import callbacks as C
from tfopt import optimizers as O

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = X[:, :1]


def make(optimizer):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    return model


def fit(model, epochs, *callbacks, **options):
    options = {"batch_size": 8, "shuffle": False, "verbose": 0, **options}
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **options).history


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: O.ScheduleFreeAdamW(0.05),
        pytest.param(lambda: O.ScheduleFreeSGD(0.1), marks=pytest.mark.full),
        pytest.param(lambda: O.Adam(0.05, use_ema=True), marks=pytest.mark.full),
        lambda: keras.optimizers.Adam(0.05, use_ema=True),
    ],
    ids=["ScheduleFreeAdamW", "ScheduleFreeSGD", "EMA", "EMA of Keras"],
)
def test_two_fits_with_the_optimizers_average_equal_one(optimizer):
    whole, parts = make(optimizer()), make(optimizer())
    fit(whole, 4, C.WeightAveraging("optimizer"))
    for _ in range(2):
        fit(parts, 2, C.WeightAveraging("optimizer"))
    for a, b in zip(whole.get_weights(), parts.get_weights()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("keep", [True, False])
def test_averaged_shows_the_best_average_that_early_stopping_restored(keep):
    model = make(O.Adam(0.3))
    stop = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    history = fit(model, 8, C.WeightAveraging(decay=0.5, keep=keep), stop, validation_data=(X + 0.3, Y))
    best = min(history["val_loss"])
    assert history["val_loss"][-1] > best  # else there was nothing to restore
    assert model.evaluate(X + 0.3, Y, verbose=0) == pytest.approx(best)
    with C.averaged(model):
        assert model.evaluate(X + 0.3, Y, verbose=0) == pytest.approx(best)


def test_weights_that_the_user_sets_are_what_the_next_fit_begins_with():
    model = make(O.SGD(0.0, use_ema=True))
    fit(model, 1, C.WeightAveraging("optimizer"))
    given = [weight + 1 for weight in model.get_weights()]
    model.set_weights(given)
    fit(model, 1, C.WeightAveraging("optimizer", keep=False))
    for a, b in zip(given, model.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_backup_and_restore_is_refused_as_it_would_save_the_average(tmp_path):
    with pytest.raises(ValueError, match="Resume`, which saves both"):
        fit(make("sgd"), 1, C.WeightAveraging(), keras.callbacks.BackupAndRestore(tmp_path / "b"))
