"""The README's and the docs' Python blocks and the example run as they are written."""

import pathlib
import re
import runpy
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent


def blocks(name: str) -> list[str]:
    """The Python blocks of a Markdown file."""
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


def test_readme_is_short_and_its_code_runs(folder, monkeypatch, capsys):
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    (code,) = blocks("README.md")
    monkeypatch.chdir(folder)
    exec(compile(code, "README.md", "exec"), {})
    assert "int8" in capsys.readouterr().out


def test_the_file_runs_without_tfopt(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (folder / "digits.tflite").replace(folder / "model.tflite")
    Image.fromarray(np.zeros((8, 8), "uint8")).save("picture.png")
    (code,) = blocks("docs/finetune.md")
    assert "tfopt" not in code and "tensorflow" not in code
    exec(compile(code, "finetune.md", "exec"), {})
    assert capsys.readouterr().out.strip() in set("0123456789")


def test_example_runs(folder, monkeypatch, capsys):
    path = ROOT / "examples" / "finetune_mobilenet.py"
    assert len(path.read_text().splitlines()) <= 120
    output = str(folder / "example.tflite")
    options = ["digits", "--image-size", "32", "--epochs", "1", "--batch-size", "128", "--output", output]
    monkeypatch.setattr(sys, "argv", [str(path), *options])
    runpy.run_path(str(path), run_name="__main__")
    assert "int8 file" in capsys.readouterr().out
