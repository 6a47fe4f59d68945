"""Checks through `fit`: files, copies, a second fit."""

import copy
import os
import pickle
import tempfile
import warnings

import keras
import numpy as np

from tfopt.testing._training import Maker, assert_close, fit, linear_model, values


def check_a_saved_model_trains_on_identically(make: Maker) -> None:
    """Equal in every bit to the model that was not saved, from `.keras` and from `.h5`."""
    model = fit(linear_model(make(), jit_compile=False))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = [os.path.join(folder, name) for name in ("model.keras", "model.h5")]
        for path in paths:
            model.save(path)
        loaded = [keras.models.load_model(path) for path in paths]
    fit(model, 1)
    for each, path in zip(loaded, paths):
        fit(each, 1)
        assert_close(each.weights, model.weights, 0.0, f"{os.path.basename(path)} trains on differently")


def check_a_copied_model_trains_on_identically(make: Maker) -> None:
    """By `copy.deepcopy` and by pickle, after use."""
    model = fit(linear_model(make(), jit_compile=False))
    copies = {"deepcopy": copy.deepcopy(model), "pickle": pickle.loads(pickle.dumps(model))}
    fit(model, 1)
    for how, each in copies.items():
        fit(each, 1)
        assert_close(each.weights, model.weights, 0.0, f"a copy by {how} trains on differently")


def check_a_second_fit_starts_from_weights_that_were_set(make: Maker) -> None:
    """At a rate of 0, a fit after `set_weights` and `load_weights` leaves what was loaded."""
    start = [np.full(weight.shape, 1000.0, "float32") for weight in linear_model(None).weights]
    for how in ("set_weights", "load_weights"):
        model = fit(linear_model(make(), jit_compile=False))
        if how == "set_weights":
            model.set_weights(start)
        else:
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the file holds no state of the optimizer
                source = linear_model(None)
                source.set_weights(start)
                path = os.path.join(folder, "start.weights.h5")
                source.save_weights(path)
                model.load_weights(path)
        model.optimizer.learning_rate = 0.0
        moved = max(np.abs(x - y).max() for x, y in zip(values(fit(model, 1).weights), start))
        if moved > 100:  # momentum carries them by far less
            raise AssertionError(f"after `{how}` of 1000 the next fit pulls the weights back by {moved:.0f}")
