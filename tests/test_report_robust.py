"""The report of a run: a section that fails costs itself only, classes are shown side by side."""

import importlib
import json

import keras
import numpy as np
import pytest
from rich.console import Console

import tfopt
from tfopt import report
from tfopt.recipes import examination, findings
from tfopt.recipes.best import Best, KeepBest
from tfopt.recipes.progress import ConsoleProgress
from tfopt.report.write import headline

QUIET = ConsoleProgress(Console(quiet=True))


def nested_classifier(size=32, classes=3):
    """A backbone as a layer of its own, and a classifier around it."""
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    x = keras.layers.Conv2D(8, 3, 4, activation="relu")(x)
    backbone = keras.Model(inputs, x, name="backbone")
    outer = keras.Input((size, size, 3))
    features = keras.layers.GlobalAveragePooling2D()(backbone(outer))
    return keras.Model(outer, keras.layers.Dense(classes, "softmax")(features))


def images(per_class=4, classes=3, size=32):
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    pixels = random.integers(0, 256, (len(labels), size, size, 3), dtype=np.uint8)
    return dict.fromkeys(("train", "validation", "test"), (pixels, labels))


def test_grad_cam_looks_into_nested_models():
    model = nested_classifier()
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    heat = report.grad_cam(model, pixels, [0, 1])
    assert heat.shape == (2, 32, 32) and np.isfinite(heat).all()


def test_images_are_mapped_by_features_of_nested_models():
    pixels = np.random.default_rng(0).uniform(0, 255, (70, 32, 32, 3)).astype("float32")
    labels = np.arange(70) % 3
    parts = [(pixels[:40], labels[:40]), (pixels[40:], labels[40:])]
    found = report.embed_batches(nested_classifier(), parts, 70, "pca", most=50)
    assert found.points.shape == (50, 2) and "50 of 70 images" in found.method


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of which Grad-CAM, the map and the sheet of samples fail."""
    output = str(tmp_path_factory.mktemp("runs") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "grad_cam", lambda *_: 1 / 0)
        patch.setattr(report, "embed_batches", lambda *_: [][1])
        patch.setattr(findings, "augmented_samples", lambda _: {}["no such batch"])
        options = dict(epochs=0, augment=None, quantization=None, output=output, progress=QUIET)
        return tfopt.finetune(images(), model=nested_classifier(), **options)


def test_a_section_that_fails_costs_only_itself(run):
    page = run.report_path.read_text()
    assert "IndexError: list index out of range" in page and "KeyError: &#x27;no such batch&#x27;" in page
    assert "Grad-CAM could not be computed for this model (ZeroDivisionError: division by zero)" in page
    assert 'id="confusion"' in page and 'id="models"' in page
    assert run.tflite_path.exists()


def test_a_section_that_cannot_be_drawn_is_replaced_by_its_reason(tmp_path, monkeypatch):
    def broken(_):
        raise RuntimeError("first line\nsecond line")

    writing = importlib.import_module("tfopt.report.write")
    monkeypatch.setitem(writing._SECTIONS, "Models", broken)
    content = report.Report("Flowers", ["a", "b"], models=[report.ModelRow("float")], options={"seed": 1})
    page = report.write(tmp_path / "report.html", content).read_text()
    assert "RuntimeError: first line" in page and "second line" not in page and "seed" in page


def test_memory_is_bounded_and_the_surest_mistakes_are_kept():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 100)
    probabilities = random.dirichlet(np.ones(3), 100)
    pixels = np.arange(100.0)[:, None]  # an image is its number
    batches = [(pixels[i : i + 7], labels[i : i + 7]) for i in range(0, 100, 7)]
    found = examination.answers(lambda x: probabilities[x[:, 0].astype(int)], batches, 3)
    predicted = probabilities.argmax(1)
    for true, answer in np.ndindex(3, 3):
        assert found.confusion[true, answer] == np.sum((labels == true) & (predicted == answer))
    wrong = np.flatnonzero(predicted != labels)
    expected = wrong[np.argsort(-probabilities.max(1)[wrong])][: examination.MISTAKES]
    assert [mistake.number for mistake in found.mistakes] == expected.tolist()
    assert all(mistake.image[0] == mistake.number for mistake in found.mistakes)


def test_stages_after_the_refit_are_marked_in_the_report(tmp_path):
    stages = [
        report.Stage("fine-tuning", {"val_accuracy": [0.7]}),
        report.Stage("quantization", {"val_accuracy": [0.97]}, learned_validation=True),
    ]
    page = report.write(tmp_path / "page.html", report.Report("Flowers", ["a"], stages=stages)).read_text()
    assert "had learned from the validation images before quantization" in page


def rows(**last):
    float_file = report.ModelRow("float file", 0.9, bytes=800, latency_ms=2.0, engine="LiteRT, 1 thread")
    return [
        report.ModelRow("float", 0.9, bytes=900, latency_ms=20.0, engine="Keras", recalls=[1.0, 0.8, None]),
        float_file,
        report.ModelRow("int8 file", 0.8, bytes=200, latency_ms=1.0, engine="LiteRT, 1 thread", **last),
    ]


def test_speed_and_size_are_compared_between_files_of_one_interpreter():
    facts = {
        label: note for label, _, note in headline(report.Report("X-rays", ["a", "b", "c"], models=rows()))
    }
    assert facts["Latency, one image"] == "2.0× faster than float file, LiteRT, 1 thread"
    assert facts["File size"] == "4.0× smaller than float file"


def test_what_int8_costs_each_class_is_side_by_side(tmp_path):
    content = report.Report(
        "X-rays",
        ["normal", "covid", "unseen"],
        models=rows(recalls=[1.0, 0.6, None], balanced_accuracy=0.8),
        confusion=[[10, 0, 0], [4, 6, 0], [0, 0, 0]],
    )
    page = report.write(tmp_path / "page.html", content).read_text()
    section = page[page.index('id="classes"') : page.index('id="confusion"')]
    assert section.index("covid") < section.index("normal") < section.index("unseen")
    assert "\N{MINUS SIGN}20.0" in section and 'class="wrong"' in section
    assert "latency, LiteRT, 1 thread" in page and "latency, Keras" in page
    with pytest.raises(ValueError, match="`recalls`"):
        report.Report("X-rays", ["normal"], models=rows())


class Counting(keras.layers.Layer):
    def build(self, shape):
        self.count = self.add_weight(shape=(), dtype="int64", initializer="zeros", trainable=False)

    def call(self, x):
        return x


def test_weights_of_any_type_can_be_kept_and_nan_is_never_the_best():
    model = keras.Sequential([keras.Input((1,)), Counting(), keras.layers.Dense(1)])
    start = {"accuracy": np.float32(0.5), "loss": float("nan")}
    keep = KeepBest(lambda logs, prefix="val_": (logs[prefix + "accuracy"], logs[prefix + "loss"]), start)
    keep.set_model(model)
    keep.on_train_begin()
    state = keep.get_state()
    json.dumps([state["score"], [weight.shape for weight in state["weights"]]])
    assert all(isinstance(weight, np.ndarray) for weight in state["weights"])
    best = Best()
    best.observe(model, (0.5, float("nan")))
    assert best.observe(model, (0.5, 1.0)), "an accuracy with a loss is better than one without"
    assert not best.observe(model, (float("nan"), 0.0))


def test_classes_have_precision_and_f1_and_the_means_over_all(tmp_path):
    """`evaluate` gives these numbers; the report had recalls only."""
    row = report.ModelRow("int8 file", accuracy=0.75, recalls=[0.5, 1.0])
    content = report.Report(
        "Flowers",
        ["daisy", "rose"],
        models=[row],
        confusion=np.array([[1, 1], [0, 2]]),
        evaluated_model="int8 file",
        measures={"macro f1": "73.3 %", "expected calibration error": "0.031"},
    )
    page = report.write(tmp_path / "report.html", content).read_text()
    assert "int8 file: macro f1 73.3 %, expected calibration error 0.031." in page
    section = page[page.index('id="classes"') :]
    for cell in ("precision", "F1", "66.7\u202f%", "80.0\u202f%"):
        assert cell in section, cell
    found = examination.answers(lambda x: np.eye(2)[[0, 1]], [(np.zeros((2, 1)), np.array([0, 1]))], 2)
    assert found.measures["macro_f1"] == 1.0
