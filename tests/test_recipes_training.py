"""What happens during a stage besides learning: early stopping, curves, callbacks of the user."""

import io
import sys

import keras
import numpy as np
import pytest
from rich.console import Console

import tfopt
from tfopt import _optional
from tfopt.cli import main
from tfopt.recipes.best import KeepBest
from tfopt.recipes.lr_find import find_learning_rate
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.run_folder import RunFolder
from tfopt.recipes.session import Session
from tfopt.recipes.stages import FineTuning
from tfopt.tasks import Classification


def blocks(count=48):
    """Images of two brightnesses, in three splits."""
    labels = np.arange(count) % 2
    images = (labels[:, None, None, None] * 120 + np.full((count, 32, 32, 3), 60)).astype("uint8")
    return dict.fromkeys(("train", "validation", "test"), (images, labels))


def session_of(folder, callbacks=(), **options):
    x = inputs = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(x))
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax", kernel_initializer="zeros")(x))
    config = tfopt.FinetuneConfig(model=model, augment=None, batch_size=16, output=str(folder), **options)
    return Session.open(blocks(), config, callbacks=callbacks), model


class Counting(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.epochs = 0

    def on_epoch_end(self, epoch, logs=None):
        assert "val_accuracy" in logs
        self.epochs += 1


def test_patience_ends_the_second_stage_and_keeps_the_best(tmp_path):
    counting = Counting()
    session, model = session_of(tmp_path, [counting], epochs=30, patience=2, learning_rate=1e-12)
    FineTuning().train(model, session)
    assert counting.epochs <= 4, "nothing becomes better"


def test_patience_begins_anew_at_every_better_epoch_and_survives_an_interruption():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    quality = Classification(["a", "b"]).quality

    def started():
        keep = KeepBest(quality, {"accuracy": 0.5, "loss": 1.0}, patience=2)
        keep.set_model(model)
        model.stop_training = False
        keep.on_train_begin()
        return keep

    keep, stopped = started(), []
    for accuracy in (0.4, 0.6, 0.6, 0.5):
        keep.on_epoch_end(0, {"val_accuracy": accuracy, "val_loss": 1.0})
        stopped.append(model.stop_training)
    assert stopped == [False, False, False, True]
    again = started()
    again.set_state(keep.get_state())
    again.on_epoch_end(0, {"val_accuracy": 0.9, "val_loss": 0.1})
    assert model.stop_training and again.get_state()["score"][0] == 0.6, "as without the interruption"


def test_curves_for_tensorboard_are_files_of_the_run(tmp_path):
    session, model = session_of(tmp_path / "run", epochs=1, tensorboard=True)
    with RunFolder(tmp_path / "run", {"seed": 0}, False) as folder:
        FineTuning().train(model, session.in_folder(folder.checkpoints, folder.logs))
    curves = list((tmp_path / "run" / "logs" / "fine-tuning").glob("*/events.*"))
    assert {path.parent.name for path in curves} == {"train", "validation"}
    with RunFolder(tmp_path / "run", {"seed": 1}, True):
        assert not any(path.exists() for path in curves)


def test_an_unknown_option_names_those_that_are_like_it():
    with pytest.raises(TypeError, match="`epoch` is no option of FinetuneConfig. Did you mean `epochs`"):
        tfopt.finetune("digits", epoch=3)
    with pytest.raises(TypeError, match="`zzz` is no option of FinetuneConfig. Options are .*`?output"):
        tfopt.FinetuneConfig().changed(zzz=1)


def test_what_the_report_will_lack_is_said_before_training(tmp_path, monkeypatch):
    told = io.StringIO()
    session = Session.open(blocks(), tfopt.FinetuneConfig(), progress=ConsoleProgress(Console(file=told)))
    session.announce()
    assert "left out" not in told.getvalue()
    monkeypatch.setattr(_optional, "is_installed", lambda module: module != "sklearn")
    session.announce()
    assert 'left out, for lack of `sklearn`: pip install "tfopt[report]"' in told.getvalue()


@pytest.mark.parametrize("widgets", [True, False])
def test_bars_are_drawn_in_notebooks_with_and_without_ipywidgets(widgets, monkeypatch, capsys):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("tfopt.recipes.progress.is_installed", lambda name: widgets)
    progress = ConsoleProgress()
    assert progress.console.is_jupyter is widgets
    if not widgets:
        with progress.bar("training", 1) as bar:
            bar.advance()
        assert "training" in capsys.readouterr().out


def test_a_package_that_an_option_needs_is_asked_for_before_training(tmp_path, monkeypatch, capsys):
    for module in ("tensorboard", "matplotlib.figure", "keras_tuner"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match="Drawing the curve needs `matplotlib`"):
        find_learning_rate(None, plot=tmp_path / "rates.png")
    with pytest.raises(ImportError, match="`search` needs `keras_tuner`"):
        tfopt.tune.search(None)
    assert main(["finetune", "--data", "nowhere", "--tensorboard", "--output", str(tmp_path / "run")]) == 1
    assert "TensorBoard needs `tensorboard`. Install it with: pip install" in capsys.readouterr().err
