"""The README's and the docs' Python blocks and the example run as they are written."""

import pathlib
import re
import runpy
import subprocess
import sys
from importlib.metadata import distribution

import numpy as np
import pytest
import tensorflow_datasets as tfds
from packaging.requirements import Requirement
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent


def blocks(name: str) -> list[str]:
    """The Python blocks of a Markdown file."""
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


def test_code_of_the_readme_learns_in_float_and_int8(folder, monkeypatch):
    (code,) = blocks("README.md")
    monkeypatch.chdir(folder)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    accuracy = {row.name: row.accuracy for row in names["comparison"].rows}
    assert min(accuracy["float"], accuracy["int8"]) > 0.93, accuracy  # 10 % is chance
    sizes = {row.name: row.bytes for row in names["comparison"].rows}
    assert sizes["int8"] < 0.3 * sizes["float"]


def test_links_lead_somewhere():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", prose):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def link_distribution(name: str, target: pathlib.Path) -> None:
    """Puts an installed package and what it requires into a folder of its own."""
    found = distribution(name)
    for top in {file.parts[0] for file in found.files if file.parts[0] not in ("..", "__pycache__")}:
        if not (target / top).exists():
            (target / top).symlink_to(found.locate_file(top))
    for requirement in map(Requirement, found.requires or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            link_distribution(requirement.name, target)


@pytest.mark.process
def test_the_file_runs_where_only_the_interpreter_numpy_and_pillow_are(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "digits.tflite").replace(folder / "model.tflite")
    Image.fromarray(np.zeros((8, 8), "uint8")).save("picture.png")
    site = folder / "site"
    site.mkdir()
    for name in ("ai-edge-litert", "numpy", "pillow"):
        link_distribution(name, site)
    assert not list(site.glob("tensorflow")) and not list(site.glob("*keras*"))
    (code,) = [block for block in blocks("docs/finetune.md") if "ai_edge_litert" in block]
    alone = f"import sys; sys.path.append({str(site)!r})\n{code}\nassert 'tensorflow' not in sys.modules"
    command = [sys.executable, "-I", "-S", "-c", alone]  # no site-packages
    assert subprocess.check_output(command, text=True).strip() in set("0123456789")


@pytest.mark.full
def test_example_runs(folder, monkeypatch, capsys):
    path = ROOT / "examples" / "finetune_mobilenet.py"
    assert len(path.read_text().splitlines()) <= 120
    output = str(folder / "example.tflite")
    options = ["digits", "--image-size", "32", "--epochs", "1", "--batch-size", "128", "--output", output]
    monkeypatch.setattr(sys, "argv", [str(path), *options])
    runpy.run_path(str(path), run_name="__main__")
    assert "int8 file" in capsys.readouterr().out


@pytest.mark.full
def test_imagenet_example_runs_on_random_images_of_its_form(folder, monkeypatch, capsys):
    path = ROOT / "examples" / "imagenet.py"
    assert len(path.read_text().splitlines()) <= 120
    options = [
        "--model",
        "mobilenet",
        "--image-size",
        "32",
        "--alpha",
        "0.25",
        "--epochs",
        "1",
        "--replica-batch-size",
        "4",
    ]
    monkeypatch.setattr(sys, "argv", [str(path), *options, "--output", str(folder / "imagenet")])
    with tfds.testing.mock_data(num_examples=12):
        runpy.run_path(str(path), run_name="__main__")
    assert "int8 file" in capsys.readouterr().out
    assert (folder / "imagenet" / "log.csv").read_text().startswith("epoch,accuracy,batch_size")
