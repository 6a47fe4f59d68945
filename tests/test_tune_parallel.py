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


def test_the_search_of_the_main_job_is_launched_with_a_trial_for_each_worker(monkeypatch, capsys):
    started = []
    monkeypatch.setattr("tfopt.tune.launch_search", lambda *words, **_: started.append(words) or 0)
    for words in (["search"], ["--", "tfopt", "search"], ["--tuner", "search"]):
        assert main(["launch", "-n", "3", *words, "--data", "photos"]) == 0
    assert started == [(["-m", "tfopt", "search", "--data", "photos"], 3)] * 3
    assert main(["launch", "--hosts", "a:1,b:1", "search", "--data", "photos"]) == 1
    assert "A search on several workers has no --hosts" in capsys.readouterr().err


@pytest.mark.full
@pytest.mark.process
def test_two_workers_search_over_the_main_job_and_the_chief_tells_the_result(tmp_path, capfd):
    (tmp_path / "space.json").write_text('{"label_smoothing": [0.0, 0.1]}')
    words = ["search", "--data", "digits", "--space", str(tmp_path / "space.json"), "--tuner", "grid"]
    words += ["--image-size", "32", "--alpha", "0.25", "--epochs", "1", "--quantization", "dynamic"]
    assert main(["launch", "-n", "2", *words, "--output", str(tmp_path / "s")]) == 0
    told = capfd.readouterr().out
    assert told.count(f"best   {tmp_path / 's' / 'best.json'}") == 1
    lines = (tmp_path / "s" / "trials.jsonl").read_text().splitlines()[1:]
    trials = [json.loads(line) for line in lines]
    assert sorted(trial["values"]["label_smoothing"] for trial in trials) == [0.0, 0.1]
    assert len(list((tmp_path / "s" / "trials").iterdir())) == 2


def test_workers_elsewhere_are_refused(capsys):
    assert main(["launch", "--tuner", "--hosts", "a:1,b:1", "search.py"]) != 0
    assert "--hosts" in capsys.readouterr().err


@pytest.mark.process
def test_an_error_in_the_script_ends_everything(tmp_path, capfd):
    script = tmp_path / "wrong.py"
    script.write_text("import sys; sys.exit(3)")
    assert launch_search([str(script)], 2, output=sys.stdout) == 3
