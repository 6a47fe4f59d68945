"""The blocks of docs/compression.md run as they are written, one after the other."""

import ast
import pathlib
import re

import numpy as np
import pytest

import tfopt

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "compression.md"


def blocks():
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_every_name_of_the_page_exists():
    used = [
        node for code in blocks() for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Attribute)
    ]
    names = {node.attr for node in used if ast.unparse(node.value) in ("compress", "tfopt.compress")}
    assert len(names) > 10 and all(hasattr(tfopt.compress, name) for name in names)


@pytest.mark.full
def test_every_block_runs_and_does_what_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in blocks():
        exec(compile(code, str(PAGE), "exec"), names)
    out = capsys.readouterr().out
    assert "int8, trained" in out
    clustered = [kernel for kernel in names["kernels"] if len(kernel.shape) in (2, 4)]
    assert all(kernel.zeros >= 0.69 and kernel.unique_values <= 32 for kernel in clustered)
    accuracy = {
        name: names[name].evaluate(names["test"], verbose=0)[1] for name in ("model", "small", "binary")
    }
    assert min(accuracy.values()) > 0.7, accuracy
    assert names["half"].count_params() < 0.5 * names["model"].count_params()
    weights = [layer.kernel.numpy() for layer in names["sparse"].layers if "conv" in layer.name]
    assert np.mean(np.concatenate([np.ravel(w) for w in weights]) == 0) > 0.7
