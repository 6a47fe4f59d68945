"""`tfopt launch --tuner`: a chief, workers, one of which dies, and every result kept."""

import json
import pathlib
import sys
import time

import pytest

from tfopt.cli import main
from tfopt.tune import launch_search

JOB = pathlib.Path(__file__).parent / "workers" / "search_job.py"


@pytest.mark.full
@pytest.mark.process
def test_a_killed_worker_is_replaced_and_no_result_is_lost(tmp_path, capfd):
    code = main(["launch", "--tuner", "-n", "2", "--max-restarts", "1", str(JOB), str(tmp_path)])
    ended = time.time()
    lines = (tmp_path / "search" / "trials.jsonl").read_text().splitlines()[1:]
    records = [json.loads(line) for line in lines]
    assert code == 0 and sorted(record["values"]["layers"] for record in records) == [1, 2, 3, 4, 5, 6]
    assert all(record["error"] == "" for record in records)
    assert json.loads((tmp_path / "search" / "best.json").read_text()) == {"layers": 1}
    assert "[chief] best 1" in capfd.readouterr().out
    assert len(list(tmp_path.glob("tuner*"))) >= 2, "the one that died and another"
    last = max(path.stat().st_mtime for path in tmp_path.rglob("trials.jsonl"))
    assert ended - last < 15, "keras-tuner's own chief takes 20 s more"


def test_workers_elsewhere_are_refused(capsys):
    assert main(["launch", "--tuner", "--hosts", "a:1,b:1", "search.py"]) != 0
    assert "--hosts" in capsys.readouterr().err


@pytest.mark.process
def test_an_error_in_the_script_ends_everything(tmp_path, capfd):
    script = tmp_path / "wrong.py"
    script.write_text("import sys; sys.exit(3)")
    assert launch_search([str(script)], 2, output=sys.stdout) == 3
