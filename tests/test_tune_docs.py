"""The Python of docs/tuning.md runs: the search as it is, the measurements on a small model."""

import pathlib
import re

import keras
import numpy as np
import pytest

TEXT = (pathlib.Path(__file__).parent.parent / "docs" / "tuning.md").read_text()


@pytest.mark.full
def test_the_search_runs(tmp_path, monkeypatch, capsys):
    code = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "tuning.md", "exec"), {})
    assert "the best 4 of 4 trials" in capsys.readouterr().out
    assert (tmp_path / "runs" / "search" / "report.html").exists()


@pytest.mark.full
@pytest.mark.process
def test_the_measurements_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    names = {"model": model, "images": np.ones((8, 4), "float32"), "labels": np.zeros(8, "int64")}
    throughput = TEXT[TEXT.index("## Throughput") :]
    for code in re.findall(r"```python notest\n(.*?)```", throughput, re.DOTALL):
        exec(compile(code.replace("1024", "4"), "tuning.md", "exec"), names)
    assert names["sizes"].largest == 4 and names["model"].compiled
    assert list((tmp_path / "tfopt").glob("throughput-*.json"))
