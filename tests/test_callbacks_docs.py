"""The Python blocks of docs/callbacks.md and docs/schedules.md run, and print what they say."""

import pathlib
import re

import pytest

import tfopt

ROOT = pathlib.Path(__file__).parent.parent


def blocks(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / name).read_text(), re.DOTALL)


@pytest.mark.parametrize("name", ["callbacks.md", "schedules.md"])
def test_blocks_run_as_written(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(name))
    exec(compile(code, name, "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    promised = re.findall(r"print\(.*\)\s+# ([\[\d].*)", code)
    for line in promised:
        said = re.findall(r"[\d.]+", line.split(":")[0])
        assert any(all(number in found for number in said) for found in printed), line


def test_every_callback_and_schedule_is_documented():
    hidden = ("StatefulCallback", "averaged", "BatchSizeSchedule", "as_batch_size_schedule")
    for part, name in ((tfopt.callbacks, "callbacks.md"), (tfopt.schedules, "schedules.md")):
        text = (ROOT / "docs" / name).read_text()
        assert not [public for public in part.__all__ if public not in text and public not in hidden]
