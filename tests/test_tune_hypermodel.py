"""A `HyperModel` of keras-tuner in `search`, and searches with several objectives."""

import keras
import numpy as np
import pytest
from rich.console import Console

from tfopt.recipes.progress import ConsoleProgress
from tfopt.tune import HyperModelJob, Objective, Range, When, search

keras_tuner = pytest.importorskip("keras_tuner")
QUIET = ConsoleProgress(Console(quiet=True))
X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
Y = X @ np.float32([[1.0], [2.0], [3.0]])


class Regressor(keras_tuner.HyperModel):
    """A regression with a conditional space and a `fit` of its own."""

    def build(self, hp):
        kind = hp.Choice("kind", ["linear", "deep"])
        layers = [keras.Input((3,))]
        with hp.conditional_scope("kind", ["deep"]):
            if kind == "deep":
                layers.append(keras.layers.Dense(hp.Int("units", 2, 6, step=2), "tanh"))
        model = keras.Sequential([*layers, keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(hp.Float("rate", 0.001, 0.5, sampling="log")), "mse")
        return model

    def fit(self, hp, model, *args, **options):
        batch = hp.Int("batch", 4, 16)
        return model.fit(*args, batch_size=batch, **options)


def test_a_hypermodel_of_any_task_is_searched_with_its_conditions(tmp_path, caplog):
    job = HyperModelJob(Regressor(), X, Y, objective="loss", epochs=2, verbose=0)
    assert list(job.space) == ["kind", "rate", "units"] or list(job.space) == ["kind", "units", "rate"]
    assert job.space["rate"] == Range(0.001, 0.5, log=True)
    condition = job.space["units"]
    assert isinstance(condition, When) and condition.domain == [2, 4, 6]
    assert (condition.parent, condition.values) == ("kind", ["deep"])
    options = dict(evaluate=job, tuner="random", objective="loss", progress=QUIET, output=tmp_path)
    result = search(None, trials=4, **options)
    assert len(result.completed) == 4, [trial.error for trial in result.trials]
    assert all(
        (trial.values["units"] is None) == (trial.values["kind"] == "linear") for trial in result.trials
    )
    losses = [trial.metrics["loss"] for trial in result.completed]
    assert losses == sorted(losses)
    assert "batch" in caplog.text and "job.space" in caplog.text


def test_the_best_epoch_counts_and_hyperband_decides_how_many():
    def build(hp):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(hp.Choice("rate", [5.0])), "mse")  # diverges
        return model

    job = HyperModelJob(build, X, Y, objective="loss", epochs=1, verbose=0)
    metrics = job({"rate": 5.0}, 3)
    assert metrics["loss"] < 100
    for found, expected in (({"a": 1}, {"a": 1.0}), (np.float32(2.0), {"loss": 2.0})):
        job._fit = lambda *arguments, found=found, **options: found
        assert job({"rate": 5.0}, None) == expected
    history = keras.callbacks.History()
    history.history = {"loss": [np.nan, 0.6, 0.4, np.nan], "error": [1.0, 2.0, 3.0, 4.0]}
    job._fit = lambda *arguments, **options: history
    assert job({"rate": 5.0}, None) == {"loss": 0.4, "error": 3.0}  # NaN is neither less nor more
    job._fit = lambda *arguments, **options: None
    with pytest.raises(ValueError, match="History, a dictionary of metrics or a number"):
        job({"rate": 5.0}, None)


def test_hypermodels_that_cannot_be_searched(tmp_path):
    with pytest.raises(TypeError, match=r"HyperModelJob\(hypermodel, x, y"):
        search(None, {"a": [1]}, evaluate=Regressor(), output=tmp_path)
    with pytest.raises(ValueError, match="declares hyperparameters"):
        HyperModelJob(lambda hp: None, objective="loss")


def test_several_objectives_keep_what_no_other_trial_beats(tmp_path):
    def evaluate(values, epochs):
        return {
            "accuracy": values["a"] / 4,
            "latency_ms": float(values["a"] ** 2 + values["b"]),
            "b": values["b"],
        }

    options = dict(evaluate=evaluate, tuner="grid", progress=QUIET, output=tmp_path)
    space = {"a": [1, 2, 3], "b": [0, 1]}
    result = search(None, space, objective=["accuracy", Objective("latency_ms", "min")], trials=9, **options)
    assert [trial.values for trial in result.front] == [{"a": a, "b": 0} for a in (3, 2, 1)]
    assert result.best.values["a"] == 3
    with pytest.raises(ValueError, match=r"single one for tuner='bayesian'.*front.*trade_off"):
        search(None, space, objective=["accuracy", "latency_ms"], evaluate=evaluate, tuner="bayesian")
    with pytest.raises(ValueError, match="size"):
        search(None, space, objective=["accuracy", Objective("size", "min")], **options)
