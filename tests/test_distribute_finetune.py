"""The recipes on several replicas and workers: the same model as on one device, one owner of the folder."""

import dataclasses
import io
import json
import os
import re

import keras
import numpy as np
import pytest
from workers import exactness, recipe

import tfopt
from tfopt.cli import _workers, main
from tfopt.compress.comparison import Row
from tfopt.compress.tflite_model import Latency
from tfopt.recipes.devices import strategy_of
from tfopt.recipes.run_folder import RunFolder
from tfopt.recipes.stages import FineTuning
from tfopt.recipes.starting import starting_model

ADDRESSES = ["127.0.0.1:1", "127.0.0.1:2"]


@pytest.fixture
def worker(monkeypatch):
    """Makes this process the worker of an index among two, by its environment."""

    def become(index):
        task = {"cluster": {"worker": ADDRESSES}, "task": {"type": "worker", "index": index}}
        monkeypatch.setenv("TF_CONFIG", json.dumps(task))

    return become


@pytest.mark.full
@pytest.mark.process
def test_two_workers_train_as_one_device_and_the_chief_alone_owns_the_folder(tmp_path):
    expected = recipe.trained(exactness.ONE_DEVICE, str(tmp_path / "one"))["weights"]
    uneven = recipe.trained(exactness.ONE_DEVICE, str(tmp_path / "odd"), 49)["weights"]
    chief, other = tfopt.distribute.spawn(recipe.spawned, 2, args=(str(tmp_path),), timeout_seconds=600)
    for each in (chief, other):
        # The head is fitted until its loss is flat, from features that are rounded by the number of threads.
        assert exactness.largest(each["first"]["weights"], expected) < 1e-3
        assert exactness.largest(each["uneven"], uneven) < 5e-3
        assert exactness.largest(each["first"]["weights"], each["again"]["weights"]) == 0
        assert each["sent"] == bytes(range(256)) * 5 + b"end" and each["answer"] == "the chief's"
        assert each["differ"].startswith("ValueError: All workers must have the same images.")
        assert each["first"]["shared"] and each["again"]["seconds"] == chief["first"]["seconds"]
    assert exactness.largest(chief["first"]["weights"], other["first"]["weights"]) == 0
    assert chief["failed"] == "OSError: no room" and other["failed"].startswith("ChiefFailedError")
    assert chief["first"]["own"] == str(tmp_path / "run")
    assert str(tmp_path) not in other["first"]["own"] and other["first"]["gone"]
    left = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*.*")}
    stages = {"stages/head.keras", "stages/fine-tuning.keras"}
    assert left == {*stages, "run.json", ".tfopt", ".tfopt/files.json"}, "no checkpoints, no foreign file"


@pytest.mark.full
@pytest.mark.process
def test_the_command_on_two_workers_makes_the_model_of_one(tmp_path, monkeypatch):
    path = str(tmp_path / "own.keras")
    recipe.network().save(path)
    from PIL import Image

    for number, image in enumerate(recipe.blocks(60)["train"][0]):
        (tmp_path / "photos" / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "photos" / f"class{number % 2}" / f"{number}.png")
    options = ["--data", str(tmp_path / "photos"), "--model", path, "--batch-size", "16", "--epochs", "2"]
    options += ["--compress-epochs", "1", "--sparsity", "0.5"]
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")  # as in the workers
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    told = io.StringIO()
    command = ["finetune", *options, "--output"]
    assert tfopt.distribute.launch([*command, one], 1, output=None) == 0
    assert tfopt.distribute.launch(["tfopt", *command, two], 2, output=told) == 0
    assert told.getvalue().count("verifying") == 1, "progress is told once"
    rows = [json.loads((tmp_path / run / "comparison.json").read_text())["rows"] for run in ("one", "two")]
    assert [row["accuracy"] for row in rows[0]] == [row["accuracy"] for row in rows[1]]
    weights = [keras.models.load_model(f"{run}/model.keras").get_weights() for run in (one, two)]
    assert exactness.largest(*weights) < 1e-4  # uneven last batches


@pytest.mark.full
@pytest.mark.process
def test_an_error_of_the_chief_ends_all_workers_with_one_message(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    told = io.StringIO()
    command = ["finetune", "--data", "digits", "--output", str(tmp_path)]
    assert tfopt.distribute.launch(command, 2, output=told) == 1
    errors = re.findall(r"tfopt finetune: .*", told.getvalue())
    assert len(errors) == 1 and "holds files of something else" in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_replicas_of_one_machine_train_as_one_device(two_replicas, mended, tmp_path):
    found = {}
    for name, strategy in {"one": exactness.ONE_DEVICE, "two": two_replicas}.items():
        session = recipe.session_of(strategy, str(tmp_path), weights=None)
        model = starting_model(session)
        FineTuning().train(model, session)
        found[name] = model.get_weights()
        for images, labels, *_ in session.plain("validation"):
            answers = model.predict_on_batch(images)
            assert len(labels) == len(answers), "one answer per image, not per replica"
    assert exactness.largest(found["one"], found["two"]) < 1e-5


def test_groups_of_the_optimizer_are_those_of_the_copy_that_trains(tmp_path):
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append((self.model, self.model.optimizer.groups))

    session = recipe.session_of(exactness.ONE_DEVICE, str(tmp_path), precision="mixed_bfloat16")
    session = dataclasses.replace(session, callbacks=[Spy()])
    model = starting_model(session)
    FineTuning().train(model, session)
    trained, groups = seen[0]
    layers = [part for group in groups for part in group.patterns() if isinstance(part, keras.Layer)]
    assert trained is not model and layers and all(layer in trained.layers for layer in layers)


def test_checkpoints_of_another_number_of_workers_are_dropped(tmp_path):
    with RunFolder(tmp_path / "run", {"seed": 0}, False) as folder:
        place = folder.checkpoints("fine-tuning")
        for number in range(2):
            (place / f"worker-{number}").mkdir(parents=True)
            (place / f"worker-{number}" / "000000001.ckpt").write_bytes(b"state")
        (place / "worker-0" / "mine.txt").write_text("of the user")
        assert not folder.drop_checkpoints(2)
        assert folder.drop_checkpoints(1)
        assert not list(place.rglob("*.ckpt")) and (place / "worker-0" / "mine.txt").exists()
        (place / "000000001.ckpt").write_bytes(b"state")
        assert not folder.drop_checkpoints(1) and folder.drop_checkpoints(3)


def test_workers_that_would_each_train_a_model_of_their_own_are_refused(worker):
    worker(0)
    with pytest.raises(ValueError, match="must be 'auto' or 'multiworker' where TF_CONFIG names 2 workers"):
        strategy_of(tfopt.FinetuneConfig(strategy="cpu"))


class Left(Exception):
    """Stands for the end of the process."""


def ends(monkeypatch):
    def leave(code):
        raise Left(code)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(_workers.logging, "shutdown", lambda: None)  # pytest needs its streams


@pytest.mark.parametrize("index", [0, 1])
def test_an_error_is_told_by_the_chief_first(index, worker, monkeypatch, capsys):
    worker(index)
    waited = []
    ends(monkeypatch)
    monkeypatch.setattr(_workers.signal, "signal", lambda *_: None)
    monkeypatch.setattr(_workers.time, "sleep", waited.append)
    with pytest.raises(Left, match="1"):
        main(["finetune", "--data", "photos", "--strategy", "cpu"])
    assert "where TF_CONFIG names 2 workers" in capsys.readouterr().err
    assert waited == [_workers.SECONDS] * index
    with pytest.raises(SystemExit):
        main(["finetune", "--nosuch"])
    assert ("required" in capsys.readouterr().err) == (index == 0), "wrong flags are told once"


@pytest.mark.parametrize("words", ["lr-find", "search", "finetune --autotune"])
def test_commands_that_would_do_the_same_on_every_worker_are_refused(words, worker, monkeypatch, capsys):
    worker(0)
    ends(monkeypatch)
    with pytest.raises(Left):
        main([*words.split(), "--data", "photos"])
    assert "one worker, and TF_CONFIG names 2" in capsys.readouterr().err


def test_a_search_over_the_main_job_is_refused_on_several_workers(worker, tmp_path):
    worker(1)
    with pytest.raises(ValueError, match="uses one worker, and TF_CONFIG names 2"):
        tfopt.tune.search("digits", output=tmp_path / "search")


def test_a_comparison_comes_back_from_its_json():
    row = Row("a", 0.5, 0.4, 0.6, 1.0, 10, 5, Latency(1.0, 0.5, 2.0, 3), 8)
    comparison = tfopt.compress.Comparison((row,), ("x", "y"), (4, 4))
    again = tfopt.compress.Comparison.from_json(comparison.to_json())
    np.testing.assert_equal(vars(again.rows[0]), vars(row))
    assert again.class_names == comparison.class_names and again.support == comparison.support
    assert again.to_json() == comparison.to_json()
