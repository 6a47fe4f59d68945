"""docs/data.md runs as it is written, block after block."""

import pathlib
import re

from PIL import Image

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "data.md"


def test_the_page_runs(tmp_path, monkeypatch, capsys):
    text = PAGE.read_text()
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, PAGE.name, "exec"), names)
    assert Image.open("sheet.png").size == (8 * 12 - 4, 8 * 12 - 4)
    assert "->" in capsys.readouterr().out
    assert int(names["model"].optimizer.iterations) == 3 * len(names["growing"])
