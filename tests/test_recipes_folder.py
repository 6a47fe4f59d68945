"""The output folder of a run: no file of the user is deleted, one run at a time, damage is noticed."""

import os
import pathlib

import keras
import numpy as np
import pytest
from rich.console import Console

import tfopt
from tfopt._files import OwnedFolder, check_output, write_text
from tfopt.recipes import budgeting, exporting
from tfopt.recipes.identity import identity
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.run_folder import RunFolder, StageRecord, save_model

QUIET = ConsoleProgress(Console(quiet=True))


def small_model():
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


def finished_run(path, seed=0):
    with RunFolder(path, {"seed": seed}, False) as folder:
        folder.finish(StageRecord("head", {"loss": [1.0]}, 2.0), small_model())
        folder.checkpoints("fine-tuning").mkdir(parents=True)
        (folder.checkpoints("fine-tuning") / "000000001.ckpt").write_bytes(b"state")
        write_text(folder.writing("report.html"), "page")
    return path


def files_below(path):
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


def test_overwrite_deletes_only_what_a_run_wrote(tmp_path):
    run = finished_run(tmp_path / "run")
    mine = ["thesis.tex", "stages/notes.txt", "checkpoints/fine-tuning/mine.h5", "photos/a.jpg"]
    for name in mine:
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("years of work")
    with RunFolder(run, {"seed": 1}, True):
        left = {name for name in files_below(run) if not name.startswith(".tfopt")}
    assert left == {*mine, "run.json"}


def test_overwrite_does_not_follow_links(tmp_path):
    run, elsewhere = finished_run(tmp_path / "run"), tmp_path / "elsewhere"
    (run / "stages").rename(elsewhere)
    (run / "stages").symlink_to(elsewhere)
    (run / "report.html").rename(tmp_path / "report.html")
    (run / "report.html").symlink_to(tmp_path / "report.html")
    with RunFolder(run, {"seed": 1}, True):
        assert (elsewhere / "head.keras").is_file() and (tmp_path / "report.html").is_file()
    (tmp_path / "link").symlink_to(run)
    with pytest.raises(ValueError, match="is a link"):
        RunFolder(tmp_path / "link", {"seed": 2}, True)


@pytest.mark.parametrize("listed", ["../thesis.tex", "/etc/hostname", "photos/../../thesis.tex", 3])
def test_a_list_that_names_files_outside_the_folder_deletes_none_of_them(listed, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    run = finished_run(tmp_path / "run")
    owned = OwnedFolder(run)
    (run / ".tfopt" / "files.json").write_text(f'["{listed}"]' if listed != 3 else "3")
    owned.clear()
    assert (tmp_path / "thesis.tex").is_file()


def test_an_input_inside_the_output_is_refused_before_anything_is_deleted(tmp_path):
    run = finished_run(tmp_path / "run")
    before = files_below(run)
    with pytest.raises(ValueError, match="is needed and lies in `output`"):
        RunFolder(run, {"seed": 1}, True, [run / "stages" / "head.keras"])
    assert files_below(run) == before


def test_a_wrong_weights_file_is_refused_before_anything_is_deleted(tmp_path):
    run = finished_run(tmp_path / "run")
    before = files_below(run)
    with pytest.raises((ValueError, OSError), match="nosuch.h5"):
        tfopt.finetune(
            "digits", weights=str(tmp_path / "nosuch.h5"), output=run, overwrite=True, progress=QUIET
        )
    assert files_below(run) == before


def test_outputs_that_would_mix_with_what_the_user_keeps_are_refused(tmp_path, monkeypatch):
    photos, repository, home = tmp_path / "project" / "photos", tmp_path / "code", tmp_path / "home"
    for folder in (photos / "daisy", repository / ".git", home):
        folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(photos.parent)
    cases = [
        (photos, "holds the data"),
        (photos.parent, "holds the data"),
        (tmp_path / "link", "holds the data"),
        (photos / "daisy", "inside the data"),
        (photos / "runs" / "first", "inside the data"),
        (repository, "root of a repository"),
        (home, "home folder"),
        (tmp_path, "home folder"),
        (tmp_path / "file", "is a file"),
    ]
    for output, reason in cases:
        with pytest.raises(ValueError, match=reason):
            check_output(output, photos)
    for output in (photos.parent / "runs", repository / "runs", home / "runs"):
        check_output(output, photos)
    monkeypatch.chdir(photos.parent)
    with pytest.raises(ValueError, match="holds the data"):
        tfopt.finetune("photos", output=".", progress=QUIET)


def test_a_folder_in_use_is_refused_with_its_holder(tmp_path):
    holder = RunFolder(tmp_path / "run", {"seed": 0}, False)
    with pytest.raises(BlockingIOError, match=f"in use by process {os.getpid()} on"):
        RunFolder(tmp_path / "run", {"seed": 0}, False)
    holder.__exit__()
    with RunFolder(tmp_path / "run", {"seed": 0}, False):
        pass


def test_a_torn_stage_is_trained_again(tmp_path):
    run = finished_run(tmp_path / "run")
    stage = run / "stages" / "head.keras"
    whole = stage.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 255
    unknown = bytearray(whole)
    unknown[whole.index(b"PK\x01\x02") + 10] = 99  # a method of compression that does not exist
    for content in (b"", whole[:1000], bytes(flipped), bytes(unknown)):
        stage.write_bytes(content)
        with RunFolder(run, {"seed": 0}, False) as folder:
            assert folder.finished("head") is None
    with RunFolder(run, {"seed": 0}, False) as folder:
        folder.finish(StageRecord("head", {"loss": [0.5]}, 1.0), small_model())
        assert folder.finished("head").history == {"loss": [0.5]}, "not the record before"


def test_torn_decisions_about_limits_are_made_again(tmp_path):
    path = tmp_path / "plan.json"
    whole = '{"keep": 0.5, "sparsities": {"conv": 0.3}, "quantization": "int8"}'
    for text in ("", whole[:-9], "[]", "{}", '{"keep": "x", "sparsities": {}, "quantization": null}'):
        path.write_text(text)
        assert budgeting._decided_before(path) is None, text
    path.write_text(whole)
    assert budgeting._decided_before(path) == whole


def test_a_damaged_config_of_a_run_asks_for_the_images(tmp_path):
    for text in ("", "[]", '{"data": 3}', "{}"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match="need images.*give `source`"):
            exporting._source(None, tmp_path)


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path, monkeypatch):
    write_text(tmp_path / "run.json", "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"no room to write \(.* MB free\).*run.json"):
        write_text(tmp_path / "run.json", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"run.json": "old"}


def test_class_names_survive_in_the_saved_model(tmp_path):
    model = small_model()
    save_model(model, tmp_path / "model.keras", ["daisy"])
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


def test_other_images_or_another_model_under_the_same_names_are_another_run(tmp_path):
    """A run took up the results of other images of the same number, and of a model that was replaced."""
    model, random = tmp_path / "model.h5", np.random.default_rng(0)
    labels = np.arange(40) % 2

    def described(images, content):
        model.write_bytes(content)
        return identity({"epochs": 1}, tfopt.data.load((images, labels)), [model])

    images = random.integers(0, 255, (40, 8, 8, 3)).astype("uint8")
    first = described(images, b"weights")
    assert first == described(images.copy(), b"weights")
    assert first != described(255 - images, b"weights")
    assert first != described(images, b"others")


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    """Python's quotes keep a shell from seeing it: runs went to a folder with the name "~"."""
    monkeypatch.setenv("HOME", str(tmp_path))
    given = {"output": "~/runs/a", "model": pathlib.Path("~/m.keras"), "weights": "~/w.h5"}
    config = tfopt.FinetuneConfig(**given)
    assert config.output == f"{tmp_path}/runs/a" and config.model == f"{tmp_path}/m.keras"
    assert config.weights == f"{tmp_path}/w.h5" and config.changed(output="~/b").output == f"{tmp_path}/b"
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match="data"):
        check_output(tmp_path / "photos" / "run", "~/photos")
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/none.keras"):
        tfopt.recipes.compress("~/none.keras", tmp_path / "photos", output="~/c")
