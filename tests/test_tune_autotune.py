"""What `finetune --autotune` may change: which settings are tried, and that the recipe trains with them."""

import dataclasses
import json
import sys
from functools import partial

import keras
import numpy as np
import pytest
from rich.console import Console

import tfopt
from tfopt.cli import main
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.session import Session
from tfopt.recipes.stages import fit
from tfopt.recipes.starting import starting_model
from tfopt.tune import autotune, contest, throughput

MODULE = sys.modules["tfopt.tune.autotune"]  # whose name in the package is that of the function
CONFIG = tfopt.FinetuneConfig(weights=None, alpha=0.25, epochs=1, batch_size=8)
RNG = np.random.default_rng(0)
IMAGES = {
    split: (RNG.integers(0, 255, (count, 32, 32, 3)).astype("uint8"), np.arange(count) % 3)
    for split, count in (("train", 44), ("validation", 9), ("test", 9))
}


class Stopping(ConsoleProgress):
    """Counts the batches; Ctrl-C after some of them."""

    def __init__(self, at=10**9):
        super().__init__(Console(quiet=True))
        self.at = at
        self.done = 0

    def bar(self, title, total):
        progress = self

        class Counting:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

            def advance(self):
                progress.done += 1
                if progress.done == progress.at:
                    raise KeyboardInterrupt

            def move_to(self, done):
                progress.done = max(progress.done, done)

            def show(self, status):
                pass

        return Counting()


def trained(tmp_path=None, progress=None, **options):
    """A small network after two epochs of six updates; without averages, which see what Keras shows them."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 255)(keras.layers.AveragePooling2D(4)(x))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, name="conv")(x))
    x = keras.layers.Dense(3, "softmax", name="head")(keras.layers.Flatten()(x))
    config = dataclasses.replace(CONFIG, model=keras.Model(inputs, x), image_size=32, **options)
    session = Session.open(IMAGES, config, progress=progress or Stopping())
    if tmp_path is not None:
        session = session.in_folder(lambda stage: tmp_path / stage, lambda stage: tmp_path / "logs" / stage)
    model = starting_model(session)
    fit.fit(model, session, fit.Training("fine-tuning", 2, 1e-2, lambda _: [], precision=config.precision))
    return model


@pytest.mark.full
def test_several_updates_per_call_are_the_same_updates(tmp_path, monkeypatch):
    progress = Stopping()
    expected = trained().get_weights()
    for one, other in zip(expected, trained(progress=progress, steps_per_execution=4).get_weights()):
        np.testing.assert_array_equal(one, other)
    assert progress.done == 12, "the bar moves by batches"

    monkeypatch.setattr(fit.callbacks, "Resume", partial(tfopt.callbacks.Resume, every_batches=1))
    with pytest.raises(KeyboardInterrupt):  # inside the second epoch
        trained(tmp_path, Stopping(at=11), steps_per_execution=4)
    for one, other in zip(expected, trained(tmp_path, steps_per_execution=4).get_weights()):
        np.testing.assert_array_equal(one, other)


def test_a_lower_precision_trains_float32_weights():
    expected, model = trained(), trained(precision="mixed_bfloat16")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert {weight.dtype for weight in model.weights} == {"float32"}
    moved = [np.abs(a - b).max() for a, b in zip(model.get_weights(), expected.get_weights())]
    assert 0 < max(moved) < 0.1, "rounded elsewhere, and else the same"


def test_only_what_is_open_is_tried(monkeypatch):
    monkeypatch.setattr(MODULE, "fast_policy", lambda kind: "mixed_bfloat16")
    monkeypatch.setattr(throughput, "available_cpus", lambda: 4)
    choices = partial(MODULE._open_choices, with_threads=False)
    always = {"jit_compile", "precision", "data_threads"}
    assert set(choices(CONFIG, 64)) == always | {"steps_per_execution"}
    assert set(choices(CONFIG, 63)) == always, "the average would see too few updates"
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    assert MODULE._open_choices(CONFIG, 63, with_threads=True)["threads"] == [2, 4]
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    assert "threads" not in MODULE._open_choices(CONFIG, 63, with_threads=True), "they were given"
    several = dataclasses.replace(CONFIG, strategy="mirrored")
    assert set(choices(several, 64)) == {"precision", "data_threads"}, "fit refuses the others there"
    fixed = dataclasses.replace(CONFIG, jit_compile=False, steps_per_execution=2, data_threads=1)
    assert set(choices(fixed, 64)) == {"precision"}
    monkeypatch.setattr(MODULE, "fast_policy", lambda kind: "float32")
    config, found = autotune("digits", fixed)
    assert config == fixed and found.speedup == 1.0 and "nothing else is open" in found.summary()


def test_the_recipe_trains_with_the_threads_it_is_given(tmp_path):
    session = Session.open(IMAGES, dataclasses.replace(CONFIG, data_threads=3))
    for batches in (session.training(), session.plain("validation")):
        assert batches.options().threading.private_threadpool_size == 3
        assert batches.position is not None
    with pytest.raises(RuntimeError, match="`threads` cannot be set"):  # TensorFlow runs here already
        tfopt.finetune(IMAGES, CONFIG, threads=7, output=str(tmp_path / "run"))


@pytest.mark.full
@pytest.mark.process
def test_a_short_training_stays_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config, found = autotune("digits", CONFIG)
    assert config == CONFIG and len(found.measurements) == 1 and "too short" in found.summary()


@pytest.mark.full
@pytest.mark.process
def test_the_command_trains_with_what_was_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(contest, "_SHORT_SECONDS", 0.0)
    options = ["--alpha", "0.25", "--epochs", "1", "--batch-size", "8", "--quantization", "none"]
    command = ["finetune", "--data", "digits", *options, "--autotune", "--output", str(tmp_path / "run")]
    assert main(command) == 0
    said = capsys.readouterr().out
    (answer,) = (tmp_path / "tfopt").glob("throughput-*.json")
    chosen = json.loads(answer.read_text())["setting"]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert "default" in said and len(json.loads(answer.read_text())["measurements"]) >= 3
    for name in ("jit_compile", "precision", "steps_per_execution", "threads", "data_threads"):
        default = getattr(tfopt.FinetuneConfig(), name)
        assert config[name] == (default if chosen[name] is None else chosen[name])
    assert main(command) == 0, "the answer is remembered, and the finished run is the same"
    assert "(remembered)" in capsys.readouterr().out
