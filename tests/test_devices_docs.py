"""docs/devices.md: its Python runs without tfopt, its other programs find the labels of such a file."""

import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from tfopt.compress import export

TEXT = (pathlib.Path(__file__).parent.parent / "docs" / "devices.md").read_text()
NAMES = ["daisy", "größer", "tulip"]


def programs(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the file of a small classifier, its C++ source and a picture of white pixels."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    head = layers.Dense(
        3, activation="softmax", kernel_initializer="zeros", bias_initializer=lambda *_, **__: [0.0, 2, 0]
    )
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Rescaling(1 / 255), layers.GlobalAveragePooling2D(), head]
    )
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3)).astype("float32")
    folder = tmp_path_factory.mktemp("board")
    export(model, folder / "model.tflite", "int8", pixels, class_names=NAMES, target="tflm")
    Image.new("RGB", (20, 10), "white").save(folder / "picture.png")
    return folder


@pytest.mark.process
def test_the_python_program_names_the_class_without_tfopt(folder):
    (code,) = programs("python")
    command = [
        sys.executable,
        "-X",
        "utf8",
        "-c",
        f"{code}\nassert 'tfopt' not in sys.modules",
        "model.tflite",
        "picture.png",
    ]
    lines = subprocess.check_output(command, text=True, cwd=folder, encoding="utf-8").splitlines()
    assert re.fullmatch(r"größer \d\d\.\d%", lines[0]) and len(lines) == 3


def test_labels_lie_where_the_kotlin_swift_and_cpp_programs_look(folder):
    content = (folder / "model.tflite").read_bytes()

    def number(at, size):
        return int.from_bytes(content[at : at + size], "little")

    directory = number(content.rfind(b"PK\5\6") + 16, 4)
    header = number(directory + 42, 4)
    start = header + 30 + number(header + 26, 2) + number(header + 28, 2)
    assert content[start : start + number(directory + 24, 4)].decode().split("\n") == NAMES
    for program in (*programs("kotlin"), *programs("swift"), programs("cpp")[0]):
        assert all(f"+ {offset}" in program for offset in (16, 42, 30, 26, 28, 24)), program


def test_the_program_for_microcontrollers_uses_the_names_of_the_written_source(folder):
    code = programs("cpp")[1]
    header = (folder / "model.h").read_text()
    assert '#include "model.h"' in code
    for name in ("model", "model_labels"):
        assert re.search(rf"\b{name}\[", header) and re.search(rf"\b{name}\b", code)
