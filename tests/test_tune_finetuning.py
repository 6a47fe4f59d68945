"""`search` over the main job: trials that train, a file that `tfopt finetune` runs, honest splits."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import tfopt
from tfopt.cli import main
from tfopt.recipes.progress import ConsoleProgress
from tfopt.tune import finetuning
from tfopt.tune.finetuning import check_settings, default_space, held_back, values_as_they_are

QUIET = ConsoleProgress(Console(quiet=True))
SMALL = tfopt.FinetuneConfig(weights=None, image_size=32, epochs=1, quantization=None, batch_size=8)
TINY = dataclasses.replace(SMALL, model="squeezenet")


@pytest.fixture
def photos(tmp_path):
    """Bright and dark pictures, a handful in each split."""
    for split, count in (("train", 8), ("validation", 4), ("test", 3)):
        for label, level in (("dark", 40), ("light", 210)):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = np.random.default_rng(index).integers(-20, 20, (32, 32, 3)) + level
                Image.fromarray(pixels.astype("uint8")).save(folder / f"{index}.png")
    return tmp_path / "photos"


@pytest.mark.full
def test_the_command_runs_what_the_search_found(photos, tmp_path):
    space = {
        "learning_rate": [1e-3],
        "optimizer": ["lion"],
        "schedule": ["linear"],
        "batch_growth": [2],
        "augment": [tfopt.data.Augment(flip="horizontal")],
    }
    options = dict(tuner="grid", config=TINY, output=tmp_path / "search", progress=QUIET)
    result = tfopt.tune.search(str(photos), space, **options)
    assert set(result.best.metrics) == {"accuracy", "bytes", "bytes_zipped", "latency_ms"}
    assert not list((tmp_path / "search").rglob("stages")), "the models of all stages fill the disk"
    with pytest.raises(ValueError, match="other values of config"):
        tfopt.tune.search(str(photos), space, **{**options, "config": tfopt.FinetuneConfig()})

    output = tmp_path / "run"
    best = str(tmp_path / "search" / "best.json")
    assert main(["finetune", "--data", str(photos), "--config", best, "--output", str(output)]) == 0
    config = json.loads((output / "run.json").read_text())["identity"]
    assert (
        config["learning_rate"] == 1e-3
        and config["optimizer"] == "lion"
        and config["batch_growth"] == 2
        and config["augment"] == {"flip": "horizontal"}
    )
    assert config["quantization"] is None and config["epochs"] == 1 and (output / "model.tflite").exists()


@pytest.mark.full
def test_a_search_starts_from_the_settings_as_they_are(photos, tmp_path):
    space = {"learning_rate": tfopt.tune.Range(1e-4, 1e-2, log=True), "optimizer": ["lion", "adamw"]}
    config = dataclasses.replace(TINY, learning_rate=2e-3)
    options = dict(config=config, output=tmp_path / "search", progress=QUIET)
    result = tfopt.tune.search(str(photos), space, trials=1, **options)
    assert [(trial.values, trial.epochs) for trial in result.trials] == [
        ({"learning_rate": 2e-3, "optimizer": "adamw"}, 1)
    ]
    best = tfopt.FinetuneConfig.from_file(tmp_path / "search" / "best.json")
    assert best == config, "what is left out of a search, such as the last fit, is not what it recommends"
    again = tfopt.tune.search(str(photos), space, trials=2, **options).trials
    assert len(again) == 2 and again[0] == result.trials[0]


@pytest.mark.parametrize(
    "tuner",
    ["random", *(pytest.param(name, marks=pytest.mark.full) for name in ("hyperband", "bayesian", "grid"))],
)
def test_the_first_trial_is_the_main_job_and_may_fail(photos, tmp_path, monkeypatch, tuner):
    row = SimpleNamespace(accuracy=0.5, bytes=1, bytes_zipped=1, latency=SimpleNamespace(median_ms=1.0))

    def finetune(images, config, progress):
        if config.learning_rate == 2e-3 and config.optimizer == "adamw":
            raise MemoryError("boom")
        return SimpleNamespace(comparison=SimpleNamespace(rows=[row]))

    monkeypatch.setattr(finetuning, "finetune", finetune)
    space = {"learning_rate": tfopt.tune.Range(1e-4, 1e-2, log=True), "optimizer": ["lion", "adamw"]}
    config = dataclasses.replace(TINY, learning_rate=2e-3, epochs=9)
    options = dict(config=config, tuner=tuner, output=tmp_path / "search", progress=QUIET)
    first, *others = tfopt.tune.search(str(photos), space, trials=4, **options).trials
    assert first.values == {"learning_rate": 2e-3, "optimizer": "adamw"} and "boom" in first.error
    assert first.epochs == (9 if tuner == "hyperband" else None)
    assert len(others) == 3 and not any(trial.error for trial in others)


def test_the_point_of_the_space_that_changes_nothing(photos):
    images = held_back(str(photos), SMALL)
    photographs = tfopt.FinetuneConfig(weights="imagenet", image_size=224)
    found = values_as_they_are(photographs, images, default_space(photographs, images))
    assert found["augment"] == "standard" and found["learning_rate"] == 5e-4 and found["unfreeze"] == 0.5
    assert values_as_they_are(SMALL, images, default_space(SMALL, images))["augment"] == "auto"
    assert values_as_they_are(SMALL, images, {"learning_rate": [0.5]}) is None
    assert values_as_they_are(SMALL, images, {"learning_rate": tfopt.tune.Range(0.1, 0.5)}) is None


def test_the_test_split_stays_unseen(photos):
    images = held_back(str(photos), SMALL)
    assert len(list(images.test)) == 8 and images.class_counts["test"] == [4, 4]
    with pytest.raises(ValueError, match="validation split"):
        held_back(tfopt.data.load(str(photos / "train"), validation_split=0.0), SMALL)


def test_the_default_space_fits_the_configuration(photos):
    images = held_back(str(photos), SMALL)
    scratch = default_space(SMALL, images)
    assert "alpha" in scratch and "unfreeze" not in scratch and "sparsity" not in scratch
    pretrained = default_space(tfopt.FinetuneConfig(weights="imagenet", sparsity=0.5), images)
    assert "alpha" not in pretrained and {"unfreeze", "sparsity"} <= set(pretrained)
    assert "batch_size" not in scratch, "it was given"
    narrow = default_space(dataclasses.replace(SMALL, alpha=0.25, dropout=0.1), images)
    assert set(scratch) - set(narrow) == {"alpha", "dropout"}
    for space in (scratch, pretrained):
        check_settings(dict(space))
        for name, values in space.items():
            for value in values if isinstance(values, list) else (values.low, values.high):
                tfopt.FinetuneConfig(**{name: value})  # would refuse a wrong one
