"""What int8 costs is seen: recall by class, the choice between two int8 files, leaks, fair times."""

import io
import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

import tfopt
from tfopt import data, tasks
from tfopt.compress import class_recall
from tfopt.recipes.leaking import leak_text
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.stages import better


def test_recall_is_counted_by_class_and_none_without_samples():
    true, predicted = np.array([0, 0, 0, 1, 1, 3]), np.array([0, 0, 1, 1, 1, 0])
    found = class_recall.recalls(true, predicted, 4)
    assert found == (pytest.approx(2 / 3), 1.0, None, 0.0)
    assert class_recall.balanced(found) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert math.isnan(class_recall.balanced((None,)))


def test_classes_that_lose_more_than_five_points_are_named_the_worst_first():
    before, after = ("float", (0.875, 1.0, 1.0, None)), ("int8 file", (0.775, 0.95, 0.5, None))
    text = class_recall.loss_text(before, after, [40, 20, 10, 0], ["Covid", "normal", "viral", "unseen"])
    assert text == (
        "2 classes lose more than 5% of their images from float to int8 file: 'viral' 5 instead of 10 of 10 "
        "(50% instead of 100%), 'Covid' 31 instead of 35 of 40 (78% instead of 88%)."
    )
    assert class_recall.loss_text(before, before, [40, 20, 10, 0]) == ""
    many = class_recall.loss_text(("a", (1.0,) * 8), ("b", (0.0,) * 8), [1] * 8)
    assert "class 4 0 instead of 1 of 1" in many and many.endswith(", and 3 more.")


class Quantized:
    """A model whose only weight says which of two tables of outputs it gives."""

    def __init__(self, tables, state=0):
        self.tables, self.state = tables, state

    def get_weights(self):
        return [np.array(self.state)]

    def set_weights(self, weights):
        self.state = int(weights[0])

    def predict_on_batch(self, images):
        return np.asarray(self.tables[self.state])[np.asarray(images)[:, 0].astype(int)]


def kept(untrained, trained, task=None):
    """`keep_better` for three images of class 0, on which the float model is always right and sure."""
    labels = np.eye(2, dtype="float32")[[0, 0, 0]]
    batches = tf.data.Dataset.from_tensor_slices((np.arange(3.0)[:, None], labels)).batch(2)
    task = task or tasks.Classification(["a", "b"])
    session = SimpleNamespace(task=task, plain=lambda split: {"validation": batches}[split])
    model = Quantized([untrained, trained], state=1)
    results = better.keep_better(model, [np.array(0)], Quantized([labels]), session)
    assert results[better.KEPT] == [float(model.state)], "the weights are those that were chosen"
    return bool(model.state), better.verdict(results, task)


SURE, UNSURE, WRONG = [1.0, 0.0], [0.6, 0.4], [0.0, 1.0]


@pytest.mark.parametrize(
    "trained, untrained, expected",
    [
        ([SURE, SURE, SURE], [SURE, SURE, WRONG], True),
        ([SURE, SURE, WRONG], [SURE, SURE, UNSURE], False),
        ([SURE, SURE, SURE], [SURE, SURE, UNSURE], True),  # closer to the float model
        ([SURE, SURE, SURE], [SURE, SURE, SURE], False),  # no better
    ],
)
def test_training_with_quantization_must_beat_what_needs_none(trained, untrained, expected):
    found, text = kept(untrained, trained)
    assert found == expected
    assert ("training with quantization was kept" in text) == expected
    assert "accuracy on validation" in text


def test_smaller_errors_are_better_in_a_regression():
    numbers = tasks.Regression(["x", "y"], [0.0, 0.0], [1.0, 1.0])
    found, text = kept([[1.0, 0.5]] * 3, [[1.0, 0.1]] * 3, numbers)
    assert found and "validation 0.05, 0.25 without it" in text


def test_images_in_two_splits_are_told_with_their_places():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    labels = np.arange(6) % 2
    images = data.load({"train": (pixels[:4], labels[:4]), "test": (pixels[3:], labels[3:])})
    note = leak_text(images)
    assert "1 images of test (33.3%) are in another split too" in note and "'test: 0'" in note
    clean = data.load({"train": (pixels[:4], labels[:4]), "test": (pixels[4:], labels[4:])})
    assert leak_text(clean) == ""


def test_a_search_for_leaks_that_fails_costs_only_the_warning(monkeypatch):
    monkeypatch.setattr(data, "find_leaks", lambda _: 1 / 0)
    assert leak_text(None) == ""


def test_a_run_compares_files_and_tells_which_int8_model_was_kept(tmp_path):
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, 4, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))
    random = np.random.default_rng(0)
    labels = np.arange(24) % 2
    pixels = random.integers(0, 100, (24, 16, 16, 3), dtype=np.uint8) + (labels * 100)[:, None, None, None]
    pixels = pixels.astype("uint8")
    cuts = {"train": slice(0, 12), "validation": slice(12, 18), "test": slice(16, 24)}  # 16, 17: a leak
    said = io.StringIO()
    result = tfopt.finetune(
        {name: (pixels[cut], labels[cut]) for name, cut in cuts.items()},
        model=model,
        epochs=0,
        compress_epochs=1,
        augment=None,
        output=str(tmp_path / "run"),
        progress=ConsoleProgress(Console(file=said, width=200)),
    )
    rows = [row.name for row in result.comparison.rows]
    assert rows == ["float", "int8 (Keras)", "float file", "int8 file"]
    assert result.comparison.reference.name == "float file"
    assert (tmp_path / "run/float.tflite").exists()
    page = result.report_path.read_text()
    for text in (said.getvalue(), page):
        assert "2 images of test (25.0%) are in another split too" in text
        assert "with quantization was" in text and "on validation" in text
    assert 'id="classes"' in page and "kept_training" not in page and "kept training" not in page
