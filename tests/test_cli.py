"""The `tfopt` command: it starts at once, its help teaches, a mistake is answered by one sentence."""

import dataclasses
import errno
import io
import json
import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfopt
from tfopt.cli import main
from tfopt.cli._messages import is_expected
from tfopt.cli._quiet import quiet_libraries
from tfopt.models import _architectures
from tfopt.recipes import CompressConfig, other_formats
from tfopt.recipes.options import GROUPS
from tfopt.recipes.run_folder import save_model

HEAVY = ("tensorflow", "keras", "numpy", "PIL", "rich", "asyncio")
WORDS = [
    ["--help"],
    ["--version"],
    ["nothing"],
    ["finetune", "--data", "photos", "--epochs", "many"],
    ["finetune", "--data", "photos", "--model", "renset"],
    *([name, "--help"] for name in ("finetune", "compress", "predict", "evaluate", "lr-find", "search")),
]


@pytest.mark.process
def test_help_and_wrong_flags_import_nothing_heavy_and_answer_at_once(tmp_path):
    code = (
        "import contextlib, io, json, sys, time\n"
        "from tfopt.cli import main\n"
        "quiet = io.StringIO()\n"
        "with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):\n"
        "    try: main(json.loads(sys.argv[1]))\n"
        "    except SystemExit: pass\n"
        "print(json.dumps([sorted({name.split('.')[0] for name in sys.modules}), time.process_time()]))"
    )
    for words in WORDS:
        command = [sys.executable, "-c", code, json.dumps(words)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
        modules, seconds = json.loads(done.stdout)
        assert not set(HEAVY) & set(modules), words
        assert seconds < 1.0, words  # 0.15 on a quiet machine


def printed(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    captured = capsys.readouterr()
    return ended.value.code, captured.out + captured.err


def test_every_option_is_a_flag_in_a_group(capsys):
    for command, config in (("finetune", tfopt.FinetuneConfig), ("compress", CompressConfig)):
        code, text = printed([command, "--help"], capsys)
        titles = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
        assert code == 0 and len(set(titles)) == len(titles) and "images:" in titles
        for field in dataclasses.fields(config):
            assert "--" + field.name.replace("_", "-") in text
            assert field.metadata["group"] in GROUPS and field.name + ": " in config.__doc__
    assert "{options}" not in tfopt.FinetuneConfig.__doc__


def test_version_is_told(capsys):
    assert printed(["--version"], capsys) == (0, f"tfopt {tfopt.__version__}\n")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--epochs", "-1"], "must be an integer >= 0 or auto, not '-1'"),
        (["--sparsity", "1"], "must be a number in [0, 1) or none, not '1'"),
        (["--optimizer", "adam"], "must be one of adamw, lion, sgd, not 'adam'"),
        (["--batch-growth", "3"], "must be one of 1, 2, 4, 8"),
        (["--augment", "wild"], "must be one of auto, light, standard, strong, none, not 'wild'"),
    ],
)
def test_a_wrong_value_is_answered_with_what_is_possible(flags, told, capsys):
    code, text = printed(["finetune", "--data", "photos", *flags], capsys)
    assert code == 2 and f"argument {flags[0]}: {told}" in text


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_training_goes_on_when_its_output_cannot_be_written(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout", Full())
    monkeypatch.setattr("tfopt.cli.finetune.run", lambda parsed: print("a\nb") or 0)
    assert main(["finetune", "--data", "photos"]) == 0
    error = capsys.readouterr().err
    assert error.count("cannot be written (No space left on device); the run goes on") == 1


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (
            ValueError("`image_size` must be 32. Received: image_size=0."),
            1,
            "`--image-size` must be 32. Received: --image-size 0.",
        ),
        (FileExistsError("Pass overwrite=True to replace."), 1, "Pass --overwrite to replace."),
        (ValueError("weights=None, on_bad_image='skip'"), 1, "--weights none, --on-bad-image skip"),
        (zipfile.BadZipFile("Bad CRC-32 for file 'config.json'"), 1, "Bad CRC-32 for file 'config.json'"),
        (FileNotFoundError(2, "No such file or directory", "a.csv"), 1, "a.csv: No such file or directory"),
        (MemoryError(), 1, "the memory of this machine is full"),
        (RuntimeError("one\ntwo\n\nthree pages of compiler text"), 1, "one two"),
        (
            IndexError("list index out of range"),
            70,
            "IndexError: list index out of range. This is a fault of tfopt",
        ),
    ],
)
def test_any_error_is_one_sentence_in_the_spelling_of_the_command_line(
    error, code, told, monkeypatch, capsys
):
    def fail(parsed):
        raise error

    monkeypatch.setattr("tfopt.cli.finetune.run", fail)
    assert main(["finetune", "--data", "photos"]) == code
    text = capsys.readouterr().err
    assert text.startswith(f"tfopt finetune: {told}") and len(text.splitlines()) == 1
    with pytest.raises(type(error)):
        main(["finetune", "--data", "photos", "--verbose"])


def test_errors_of_tensorflow_are_about_what_was_given():
    error = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    assert is_expected(error) and not is_expected(KeyError("x"))


def test_noise_of_tensorflow_is_kept_off_the_terminal(capfd):
    lines = [
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
        "I0000 00:00:1796033222.508249   16424 cudart_stub.cc:31] Could not find cuda drivers on your",
        "2026-11-30 10:00:00.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] This binary is",
        "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",
        "F0000 00:00:1796033222.508249   16424 tensor.cc:31] Check failed",
        "photos: passed over 1 files",
    ]
    with quiet_libraries():
        os.write(2, "\n".join(lines).encode())
    assert capfd.readouterr().err.splitlines() == lines[-2:]


def test_models_are_listed_with_their_costs(capsys):
    assert main(["models", "lite0"]) == 0
    text = capsys.readouterr().out
    assert "efficientnet_lite0" in text and "3.41 M" in text and "0.384 G" in text
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} == set(_architectures.ARCHITECTURES)
    assert main(["models", "nothing"]) == 1


def test_an_exported_run_is_another_file_of_the_same_model(tmp_path, capsys):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))
    save_model(model, tmp_path / "model.keras", ["a", "b"])
    assert main(["export", str(tmp_path)]) == 0
    file = tmp_path / "model-float16.tflite"
    assert capsys.readouterr().out.strip() == str(file)
    assert tfopt.compress.TFLiteModel(file).class_names == ["a", "b"]
    assert main(["export", str(tmp_path)]) == 1, "it is there already"
    assert main(["export", str(tmp_path), "--quantization", "int8"]) == 1
    assert "give `--data`" in capsys.readouterr().err
    assert main(["export", str(tmp_path), "--file-format", "saved_model"]) == 0
    assert (tmp_path / "model-saved_model" / "saved_model.pb").is_file()


def test_onnx_without_its_package_names_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)  # as if it was not installed
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    save_model(model, tmp_path / "model.keras", ["a", "b"])
    assert main(["export", str(tmp_path), "--file-format", "onnx"]) == 1
    assert 'pip install "tfopt[onnx]"' in capsys.readouterr().err


def test_an_onnx_file_agrees_with_the_model_and_keeps_its_names(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("tf2onnx")
    inputs = keras.Input((8, 8, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, padding="same")(x))
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax", name="probabilities")(x))
    save_model(model, tmp_path / "model.keras", ["a", "b"])
    assert main(["export", str(tmp_path), "--file-format", "onnx"]) == 0
    found = onnx.load(str(tmp_path / "model.onnx"))
    onnx.checker.check_model(found)
    assert [port.name for port in (*found.graph.input, *found.graph.output)] == ["pixels", "probabilities"]
    assert json.loads(found.metadata_props[0].value) == ["a", "b"]
    monkeypatch.setattr(keras.Model, "__call__", lambda *_, **__: np.ones((2, 2)))
    with pytest.raises(ValueError, match="ONNX file does not agree with the model: outputs differ by"):
        other_formats._check("ONNX file", model, lambda images: np.zeros((2, 2)))


def test_search_has_the_flags_of_finetune_that_mean_something_there(capsys):
    text = printed(["search", "--help"], capsys)[1]
    assert "(default: runs/search)" in text and "--learning-rate" in text
    assert "runs/finetune" not in text and "--overwrite" not in text
    code, text = printed(["search", "--data", "photos", "--trials", "0"], capsys)
    assert code == 2 and "argument --trials: must be an integer >= 1, not '0'" in text
