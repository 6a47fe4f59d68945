"""`tfopt compress`: from a saved model to a verified file, step by step, with errors in one line."""

import json
import re

import keras
import numpy as np
import pytest
from rich.console import Console
from sklearn.datasets import load_digits

import tfopt
from tfopt.cli import main
from tfopt.compress import Budget, slim
from tfopt.recipes import CompressConfig, compress, compress_front
from tfopt.recipes.fronting import _sizes
from tfopt.recipes.layer_changes import layer_changes
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.run_folder import save_model
from tfopt.recipes.session import Session
from tfopt.recipes.stages.fit import Training, fit_with_fresh_statistics
from tfopt.recipes.stages.quantization import small_batch

L = keras.layers
QUIET = ConsoleProgress(Console(quiet=True))
NAMES = [str(digit) for digit in range(10)]


def digits(count=600):
    """A share of the embedded digits, in splits, 32 pixels wide."""
    found = load_digits()
    images = np.kron((found.images[:count] * 15.9).astype("uint8"), np.ones((1, 4, 4), "uint8"))
    images, labels = np.repeat(images[..., None], 3, -1), found.target[:count]
    cuts = {"train": slice(0, 400), "validation": slice(400, 480), "test": slice(480, count)}
    return {name: (images[cut], labels[cut]) for name, cut in cuts.items()}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A small classifier of digits, trained to above 70 %."""
    keras.utils.set_random_seed(0)
    layers = [L.Rescaling(1 / 127.5, offset=-1.0)]
    for filters in (16, 32):
        layers += [
            L.Conv2D(filters, 3, 2, padding="same", use_bias=False),
            L.BatchNormalization(momentum=0.8),
        ]
        layers += [L.ReLU(), L.DepthwiseConv2D(3, padding="same"), L.ReLU()]
    layers += [L.GlobalAveragePooling2D(), L.Dense(10), L.Softmax()]
    model = keras.Sequential([keras.Input((32, 32, 3)), *layers], name="digits")
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*digits()["train"], epochs=20, verbose=0)
    assert model.evaluate(*digits()["test"], verbose=0)[1] > 0.7
    path = tmp_path_factory.mktemp("model") / "model.keras"
    save_model(model, path, NAMES)
    return path


@pytest.mark.parametrize(
    ("replicas", "given", "small"), [(1, 32, 16), (1, 8, 8), (2, 32, 16), (3, 30, 15), (32, 256, 32)]
)
def test_small_batches_are_shared_by_all_replicas(replicas, given, small):
    assert small_batch(given, replicas) == small


@pytest.fixture(scope="module")
def run(path, tmp_path_factory):
    """One run with every step."""
    output = tmp_path_factory.mktemp("runs") / "all"
    changes = dict(keep=0.75, slim_epochs=4, sparsity=0.5, clusters=16, epochs=2)
    options = dict(**changes, augment=None, output=str(output), learning_rate=4e-4)
    return output, options, compress(path, digits(), progress=QUIET, **options)


@pytest.mark.full
def test_every_step_is_measured_and_keeps_what_came_before(run, path):
    output, _, result = run
    names = ["float", "slimmed", "pruned", "clustered", "int8 (Keras)", "float file", "int8 file"]
    assert [row.name for row in result.comparison.rows] == names
    whole = keras.models.load_model(path)
    convolution = result.model.get_layer(whole.layers[1].name)
    assert (convolution.filters, convolution.kernel.shape) == (12, (3, 3, 3, 12))
    kernel = convolution.kernel.numpy()
    assert np.mean(kernel == 0) == pytest.approx(0.5, abs=0.01) and len(np.unique(kernel)) <= 16
    inspection = tfopt.compress.TFLiteModel(result.tflite_path).inspect()
    assert inspection.float_operations == {} and inspection.sparsity > 0.4
    assert result.comparison["int8 file"].accuracy > 0.5  # of ten classes, after a few dozen updates
    rows = json.loads((output / "comparison.json").read_text())["rows"]
    assert rows[-1]["bytes"] == (output / "model.tflite").stat().st_size
    page = result.report_path.read_text()
    assert "Compressing model.keras" in page and "sparsity" in page


def test_validation_sees_statistics_that_follow_the_weights(path):
    keras.utils.set_random_seed(0)
    model = keras.models.load_model(path, compile=False)
    norms = [layer for layer in model.layers if isinstance(layer, L.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.999
    session = Session.open(digits(), CompressConfig(epochs=4, augment=None).training(model))
    groups, pruning = tfopt.optimizers.no_decay_on_norm_and_bias, tfopt.compress.Pruning(0.2)
    training = Training("pruning", 4, 0.01, groups, [pruning], keep_best=False)
    history = fit_with_fresh_statistics(model, session, training)
    _, measured = model.evaluate(session.plain("validation"), verbose=0)  # with statistics measured anew
    assert history["val_accuracy"][-1] == pytest.approx(measured, abs=0.1)
    assert [norm.momentum for norm in norms] == [0.999, 0.999]


@pytest.mark.full
def test_the_same_run_goes_on_and_another_is_refused(run, path):
    output, options, result = run
    stages = {file.name: file.stat().st_mtime_ns for file in (output / "stages").iterdir()}
    assert set(stages) == {"slimming.keras", "pruning.keras", "clustering.keras", "quantization.keras"}
    again = compress(path, digits(), progress=QUIET, **options)
    assert {file.name: file.stat().st_mtime_ns for file in (output / "stages").iterdir()} == stages
    for old, new in zip(result.model.get_weights(), again.model.get_weights()):
        np.testing.assert_array_equal(old, new)
    with pytest.raises(FileExistsError, match="holds another run: keep differ"):
        compress(path, digits(), progress=QUIET, **{**options, "keep": 0.5})


def test_the_command(path, tmp_path, capsys):
    folder = tmp_path / "out"
    source = tmp_path / "images"
    for split, (images, labels) in digits(540).items():
        for index, (image, label) in enumerate(zip(images, labels)):
            (source / split / str(label)).mkdir(parents=True, exist_ok=True)
            keras.utils.save_img(source / split / str(label) / f"{index}.png", image)
    options = ["--data", str(source), "--quantization", "dynamic", "--output", str(folder)]
    assert main(["compress", str(path), *options]) == 0
    assert "dynamic" in capsys.readouterr().out
    assert "dynamic file" in (folder / "comparison.json").read_text()
    assert sorted(file.name for file in folder.glob("m*")) == ["model.keras", "model.tflite"]
    assert tfopt.compress.TFLiteModel(folder / "model.tflite").class_names == NAMES


def test_errors_are_one_line_and_leave_no_file(path, tmp_path, capsys):
    assert main(["compress", str(tmp_path / "no.keras"), "--data", "digits"]) == 1
    assert main(["compress", str(tmp_path / "no.tflite"), "--data", "digits"]) == 1
    broken = tmp_path / "broken.keras"
    broken.write_bytes(path.read_bytes()[:2000])
    assert main(["compress", str(broken), "--data", "digits"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["tfopt compress"] * 3
    assert "must be a file" in lines[0] and "a .keras or .h5 file" in lines[1] and "broken.keras" in lines[2]
    other = {name: (images, labels % 5) for name, (images, labels) in digits().items()}
    with pytest.raises(ValueError, match="classes of the model and of the data differ"):
        compress(path, other, progress=QUIET, output=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"keep": 1.0},
        {"sparsity": 1.0},
        {"clusters": 1},
        {"quantization": "int4"},
        {"epochs": 0},
        {"slim_epochs": 0},
        {"seed": -1},
    ],
    ids=str,
)
def test_bad_options_are_named(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"`({name}|compress_epochs)` must be"):
        CompressConfig(**options)


def test_every_option_is_a_flag(capsys):
    with pytest.raises(SystemExit):
        main(["compress", "--help"])
    text = capsys.readouterr().out
    for name in CompressConfig.__dataclass_fields__:
        assert "--" + name.replace("_", "-") in text


@pytest.mark.full
def test_limits_choose_what_is_removed_and_are_kept(path, tmp_path, capsys):
    options = dict(max_bytes="9k", max_drop="30%", epochs=1, slim_epochs=1, augment=None)
    options["output"] = str(tmp_path / "small")
    result = compress(path, digits(), progress=ConsoleProgress(), **options)
    told = capsys.readouterr().out
    assert result.tflite_path.stat().st_size <= 9000 and "limits kept" in told and "planning" in told
    decisions = json.loads((tmp_path / "small" / "plan.json").read_text())
    assert decisions["quantization"] in ("int8", "dynamic", "float16", None)
    again = compress(path, digits(), progress=ConsoleProgress(), **options)
    assert again.tflite_path.read_bytes() == result.tflite_path.read_bytes()
    assert "planning" not in capsys.readouterr().out


@pytest.mark.full
def test_limits_hold_for_finetune_too_and_a_second_call_plans_nothing(path, tmp_path, capsys):
    options = dict(max_bytes="9k", max_drop="30%", epochs=1, compress_epochs=1, augment=None)
    options |= dict(model=str(path), output=str(tmp_path / "small"))
    result = tfopt.finetune(digits(), progress=ConsoleProgress(), **options)
    told = " ".join(capsys.readouterr().out.split())
    assert result.tflite_path.stat().st_size <= 9000 and "limits kept" in told and "planning" in told
    whole = keras.models.load_model(path)
    assert result.model.count_params() <= whole.count_params() and result.model.count_params() > 0
    again = tfopt.finetune(digits(), progress=ConsoleProgress(), **options)
    assert again.tflite_path.read_bytes() == result.tflite_path.read_bytes()
    assert "planning" not in capsys.readouterr().out


def test_limits_that_cannot_be_read_or_joined_are_named(path, tmp_path):
    output = {"output": str(tmp_path / "never"), "progress": QUIET}
    with pytest.raises(
        ValueError, match="`max_bytes` must be a number with one of the units k, kB.*max_bytes='250 apples'"
    ):
        compress(path, digits(), max_bytes="250 apples", **output)
    with pytest.raises(ValueError, match="either limits or `keep` and `sparsity` and `clusters`"):
        compress(path, digits(), max_bytes="250k", keep=0.5, **output)
    with pytest.raises(
        ValueError, match="`max_bytes` must be a number with one of the units k, kB.*max_bytes='250 apples'"
    ):
        tfopt.finetune(digits(), max_bytes="250 apples", **output)
    with pytest.raises(ValueError, match="either limits or `sparsity`"):
        tfopt.finetune(digits(), max_bytes="250k", sparsity=0.5, **output)
    assert not (tmp_path / "never").exists()


@pytest.mark.full
def test_a_front_makes_a_file_for_each_size_and_goes_on(path, tmp_path, capsys):
    options = dict(epochs=1, slim_epochs=1, augment=None, output=str(tmp_path / "front"))
    result = compress_front(path, digits(), "9k, 14k, 1k", progress=ConsoleProgress(), **options)
    assert list(result.results) == ["14k", "9k"] and list(result.refused) == ["1k"]
    for size, made in result.results.items():
        assert made.tflite_path.stat().st_size <= 1000 * int(size[:-1])
    told = " ".join(capsys.readouterr().out.split())
    assert re.search(r"1k is out of reach.*'bytes': 1000\.0}; class names take \d+ bytes", told)
    page = (tmp_path / "front" / "front.html").read_text()
    assert 'href="9k/report.html"' in page and "out of reach" in page
    rows = json.loads((tmp_path / "front" / "front.json").read_text())
    assert [row["size"] for row in rows] == ["14k", "9k", "1k"] and rows[0]["bytes"] <= 14000
    assert "Layers that lost channels" in (tmp_path / "front" / "9k" / "report.html").read_text()
    again = compress_front(path, digits(), "9k,14k,1k", progress=ConsoleProgress(), **options)
    assert again.results["9k"].tflite_path.read_bytes() == result.results["9k"].tflite_path.read_bytes()
    assert "finished before" in capsys.readouterr().out
    with pytest.raises(FileExistsError, match="sizes differ"):
        compress_front(path, digits(), "9k", progress=QUIET, **options)


def test_sizes_of_a_front_are_read_and_derived(path):
    assert _sizes("60k, 1MiB,250kB", path) == ["1MiB", "250kB", "60k"]
    derived = _sizes("auto", path)
    assert len(derived) == 5 and derived == sorted(derived, key=lambda text: -Budget(bytes=text).bytes)
    for wrong in ("", "../x", "12 apples"):
        with pytest.raises(ValueError, match="sizes|bytes"):
            _sizes(wrong, path)
    with pytest.raises(ValueError, match="max_bytes='9k' as well"):
        compress_front(path, digits(), max_bytes="9k", progress=QUIET)


def test_the_report_names_layers_that_lost_channels_or_weights(path):
    whole = keras.models.load_model(path)
    half = slim(whole, keep=0.5, criterion="l2")
    changes = {change.name: change for change in layer_changes(whole, half)}
    conv = whole.layers[1]
    assert changes[conv.name].channels == (16, 8) and changes[conv.name].weights == (432, 216)
    assert all(change.zeros == 0 for change in changes.values()) and not layer_changes(whole, whole)
    kernel = half.layers[-2].kernel
    kernel.assign(np.where(np.arange(10) < 5, 0.0, kernel.numpy()))
    assert layer_changes(half, half)[-1].zeros == 0.5
