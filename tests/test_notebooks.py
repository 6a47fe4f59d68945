"""The notebooks of docs/notebooks: their form, and every cell run in order."""

import json
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parent.parent / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def code_of(path):
    """The source of each code cell."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def as_python(cell):
    """A line that starts with ! runs a command, as in a notebook."""
    lines = cell.split("\n")
    return "\n".join(
        f"subprocess.run({x[1:].split()}, check=True)" if x.startswith("!") else x for x in lines
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_starts_with_one_install_line_and_holds_no_outputs(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4 and notebook["cells"][0]["cell_type"] == "code"
    first, *rest = code_of(path)
    assert first.startswith('%pip install -q "tfopt') and "\n" not in first
    assert "$(pip freeze | grep -E '^(tensorflow|keras)==')" in first, "or pip may replace TensorFlow"
    assert not any("pip install" in cell for cell in rest)
    assert all(cell["outputs"] == [] for cell in notebook["cells"] if cell["cell_type"] == "code")


def run(path, folder, monkeypatch):
    """Runs all cells in a folder of their own and returns the names that they define."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", str(pathlib.Path(sys.executable).parent), prepend=":")
    names = {"__name__": path.stem, "subprocess": subprocess}
    for place, cell in enumerate(code_of(path)[1:]):
        file = folder / f"cell_{place}.py"  # TensorFlow reads the source of functions
        file.write_text(as_python(cell))
        exec(compile(file.read_text(), file, "exec"), names)
    return names


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_fine_tune_and_ship(tmp_path, monkeypatch):
    names = run(FOLDER / "fine_tune_and_ship.ipynb", tmp_path, monkeypatch)
    assert len(names["answers"]) == 3 and set(names["answers"]) <= set(names["data"].class_names)
    shown = names["result"]._repr_html_()
    assert shown.startswith('<iframe srcdoc="&lt;!') and "<html" not in shown and shown.count("<") == 2


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_optimizers_in_your_own_loop(tmp_path, monkeypatch):
    names = run(FOLDER / "optimizers_in_your_own_loop.ipynb", tmp_path, monkeypatch)
    assert min(names["in_fit"], names["in_loop"]) > 0.85


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_shrink_a_model_you_have(tmp_path, monkeypatch):
    names = run(FOLDER / "shrink_a_model_you_have.ipynb", tmp_path, monkeypatch)
    rows = {row.name: row for row in names["comparison"].rows}
    assert min(row.accuracy for row in rows.values()) > 0.8
    assert rows["pruned, int8"].bytes_zipped < rows["int8"].bytes_zipped < rows["float"].bytes_zipped


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_one_process_to_several_workers(tmp_path, monkeypatch):
    names = run(FOLDER / "one_process_to_several_workers.ipynb", tmp_path, monkeypatch)
    assert names["difference"] < 1e-5
