"""`search`: finds, resumes without running twice, and turns failures into results."""

import errno
import json
import math
import os
import time

import pytest
from rich.console import Console

from tfopt.recipes.progress import ConsoleProgress
from tfopt.tune import Objective, Range, SearchResult, When, search
from tfopt.tune.journal import Journal, Trial
from tfopt.tune.objective import pareto
from tfopt.tune.space import read_space

QUIET = ConsoleProgress(Console(quiet=True))
SPACE = {"rate": Range(0.01, 1.0, log=True), "layers": [1, 2, 3], "bits": [None, "int8"]}


def full(*values):
    """Parameters that `make test` leaves to `make test-all`."""
    return [pytest.param(value, marks=pytest.mark.full) for value in values]


def score(values, epochs=None):
    return {"accuracy": 1 - abs(math.log10(values["rate"]) + 1), "bytes": 1000 * values["layers"]}


@pytest.mark.parametrize("tuner", ["random", *full("grid", "hyperband")])
def test_search_finds_and_resumes_without_running_twice(tmp_path, tuner):
    calls = []

    def evaluate(values, epochs):
        calls.append(values)
        return score(values)

    options = dict(evaluate=evaluate, tuner=tuner, output=tmp_path)
    search(None, SPACE, trials=5, **options)
    assert len(calls) == 5
    result = search(None, SPACE, trials=12, **options)
    assert len(calls) == 12 == len(result.trials)
    best = max(calls, key=lambda values: score(values)["accuracy"])
    assert result.best.values == best == json.loads((tmp_path / "best.json").read_text())


@pytest.mark.full
def test_the_best_is_judged_at_full_length(tmp_path):
    """High rates lead after few epochs and lose in the end."""

    def evaluate(values, epochs):
        return {"accuracy": values["rate"] if epochs < 9 else 0.9 * (1 - values["rate"])}

    space = {"rate": Range(0.0, 1.0)}
    result = search(None, space, evaluate=evaluate, epochs=9, trials=22, output=tmp_path, progress=QUIET)
    longest = [trial for trial in result.trials if trial.epochs == 9]
    assert 1 < len(longest) < len(result.trials)
    assert max(result.trials, key=lambda trial: trial.metrics["accuracy"]) not in longest
    assert result.best == max(longest, key=lambda trial: trial.metrics["accuracy"])
    assert json.loads((tmp_path / "best.json").read_text()) == result.best.values
    page = result.report_path.read_text()
    assert f"rate {result.best.values['rate']:.2g}"[:7] in page and ">epochs<" in page


def test_a_score_that_is_no_number_is_no_result(tmp_path):
    def evaluate(values, epochs):
        return {"accuracy": 0.5, "bytes": 0.0 if values["layers"] < 3 else 8.0}

    wanted = Objective("accuracy", trade_off={"bytes": 0.01})
    options = dict(evaluate=evaluate, objective=wanted, tuner="grid", progress=QUIET)
    result = search(None, {"layers": [1, 2, 3]}, output=tmp_path / "one", **options)
    assert result.best.values == {"layers": 3} and len(result.trials) == 3
    with pytest.raises(RuntimeError, match="no finite score: accuracy 0.5, bytes 0"):
        search(None, {"layers": [1, 2]}, output=tmp_path / "none", **options)


@pytest.mark.full
def test_bayesian_search_is_quick_and_better_than_chance(tmp_path):
    def evaluate(values, epochs):
        return {"accuracy": -((values["x"] - 0.7) ** 2)}

    options = dict(evaluate=evaluate, trials=9, progress=QUIET, seed=3)
    begin = time.process_time()
    found = search(None, {"x": Range(0.0, 1.0)}, tuner="bayesian", output=tmp_path / "b", **options)
    assert time.process_time() - begin < 30
    chance = search(None, {"x": Range(0.0, 1.0)}, tuner="random", output=tmp_path / "r", **options)
    assert found.best.metrics["accuracy"] > max(-1e-3, chance.best.metrics["accuracy"])


def test_failures_are_recorded_and_the_search_goes_on(tmp_path):
    def evaluate(values, epochs):
        if values["layers"] == 1:
            raise ValueError("boom")
        return {"accuracy": math.nan if values["layers"] == 2 else 0.5}

    for _ in range(2):  # the second time from the journal
        result = search(None, SPACE, evaluate=evaluate, tuner="random", trials=12, output=tmp_path)
        errors = {trial.values["layers"]: trial.error for trial in result.trials}
        assert "boom" in errors[1] and "not finite: accuracy" in errors[2] and errors[3] == ""
        assert len(result.trials) == 12


def test_all_failed(tmp_path):
    def evaluate(values, epochs):
        raise ValueError("boom")

    with pytest.raises(RuntimeError, match="(?s)None of 3 trials.*boom"):
        search(None, SPACE, evaluate=evaluate, tuner="random", trials=3, output=tmp_path)


def test_bad_requests_are_refused(tmp_path):
    options = dict(evaluate=score, tuner="random", trials=2, output=tmp_path)
    with pytest.raises(ValueError, match="`space` must be a non-empty mapping"):
        search(None, {}, **options)
    with pytest.raises(ValueError, match="`objective` must be one of .*accuracy, bytes"):
        search(None, SPACE, objective="recall", **options)
    search(None, SPACE, **options)  # its trial was not lost
    with pytest.raises(ValueError, match="other values of space"):
        search(None, {"rate": [0.1]}, **options)
    with pytest.raises(ValueError, match="fields of FinetuneConfig"):
        search("digits", {"rate": [0.1]}, output=tmp_path / "other")
    with pytest.raises(ValueError, match="without 'epochs', which Hyperband decides"):
        search("digits", {"epochs": [2, 4]}, output=tmp_path / "other")
    with pytest.raises(ValueError, match="`batch_size` must be an integer >= 1"):
        search("digits", {"batch_size": [16, 0]}, output=tmp_path / "other")
    for objective in ("recall", Objective("accuracy", trade_off={"megabytes": 0.1})):
        with pytest.raises(ValueError, match="`objective` must be one of 'accuracy', 'bytes'"):
            search("digits", {"batch_size": [16]}, objective=objective, output=tmp_path / "other")
    assert not (tmp_path / "other").exists(), "nothing was trained"


@pytest.mark.parametrize(
    "tuner",
    ["random", *(pytest.param(each, marks=pytest.mark.full) for each in ("grid", "hyperband", "bayesian"))],
)
def test_settings_that_matter_only_with_others(tmp_path, tuner):
    space = {
        "optimizer": ["sgd", None, "adamw"],
        "momentum": When(Range(0.8, 0.99), optimizer=["sgd", None]),
        "start": When(["flat", "warm"], optimizer="adamw"),
        "steps": When([10, 20, 30], start="warm"),
    }
    calls = []

    def evaluate(values, epochs):
        calls.append(dict(values))
        return {"accuracy": 0.5 + 0.1 * (values["steps"] or 0)}

    options = dict(evaluate=evaluate, tuner=tuner, output=tmp_path, epochs=9, progress=QUIET, seed=1)
    search(None, space, trials=4, **options)
    result = search(None, space, trials=10, **options)
    assert len(calls) == len(result.trials) == 10
    for values in calls:
        assert list(values) == list(space)
        assert (values["momentum"] is not None) == (values["optimizer"] != "adamw")
        assert (values["start"] is not None) == (values["optimizer"] == "adamw")
        assert (values["steps"] is not None) == (values["start"] == "warm")
    found = {values["optimizer"] for values in calls}  # the first points of a grid are of one corner
    assert found == ({"sgd"} if tuner == "grid" else {"sgd", None, "adamw"})
    assert result.report_path.exists()
    with pytest.raises(ValueError, match="other values of space"):
        search(None, {**space, "steps": When([10, 20, 30], start="flat")}, **options)


@pytest.mark.parametrize(
    ("space", "text"),
    [
        ({"b": When([1], a=1), "a": [1, 2]}, "a setting with a list before it: there is none"),
        ({"a": Range(0, 1), "b": When([1], a=1)}, "a setting with a list before it: there is none"),
        ({"a": [1, 2], "b": When([1], a=3)}, r"on values of `a`, \[1, 2\]. Received: .*\[3\]"),
        ({"a": [1, 2], "b": When(7, a=1)}, r"`space\['b'\]` must be a `Range` or a non-empty list"),
    ],
)
def test_conditions_that_never_hold_are_refused(space, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        search(None, space, evaluate=score, tuner="random", output=tmp_path)
    with pytest.raises(ValueError, match="`space` must be without `When`"):
        search("digits", {"optimizer": ["sgd", "adamw"], "dropout": When([0.1], optimizer="sgd")})
    with pytest.raises(TypeError, match="one other setting"):
        When([1], a=1, b=2)


def test_a_line_cut_short_costs_one_trial(tmp_path):
    options = dict(evaluate=score, tuner="random", output=tmp_path)
    search(None, SPACE, trials=4, **options)
    path = tmp_path / "trials.jsonl"
    path.write_text(path.read_text()[:-20])
    assert len(search(None, SPACE, trials=4, **options).trials) == 4


HEADER = {"space": {"layers": [1, 2, 3]}, "seed": 0}


@pytest.fixture
def journal(tmp_path):
    """Three trials."""
    found = Journal(tmp_path / "trials.jsonl", HEADER)
    for layers in HEADER["space"]["layers"]:
        found.append(Trial({"layers": layers}, None, {"accuracy": 1 / layers}))
    return found


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (lambda lines: [lines[0], lines[1][:-9], *lines[2:]], [2, 3]),
        (lambda lines: [lines[0], "[1, 2]", "7", *lines[1:]], [1, 2, 3]),
        (lambda lines: [lines[0], '{"key": "x"}', '{"values": 3, "key": 4}', *lines[1:]], [1, 2, 3]),
        (lambda lines: [lines[0], lines[1].replace("layers", "\udcff"), *lines[2:]], [2, 3]),
        (lambda lines: [lines[0], lines[1].replace('"layers": 1', '"layers": 9', 1), *lines[2:]], [2, 3]),
    ],
)
def test_damaged_lines_of_a_journal_cost_their_trials_alone(damage, left, journal):
    lines = damage(journal.path.read_text().splitlines())
    journal.path.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    again = Journal(journal.path, HEADER)
    assert [trial.values["layers"] for trial in again.trials().values()] == left
    again.append(Trial({"layers": 1}, None, {"accuracy": 1.0}))
    assert sorted(trial.values["layers"] for trial in again.trials().values()) == [1, 2, 3]


def test_a_journal_without_its_first_line_is_told_as_damaged(journal):
    journal.path.write_text(journal.path.read_text()[10:])
    with pytest.raises(ValueError, match="is damaged. Choose another `output`, or delete .*trials.jsonl"):
        Journal(journal.path, HEADER)


def test_trade_off_and_pareto():
    wanted = Objective("accuracy", trade_off={"bytes": 0.01})
    assert wanted.score({"accuracy": 0.9, "bytes": 1024}) == pytest.approx(0.8)
    assert Objective("val_loss").direction == "min"
    points = [{"a": 0.9, "b": 3}, {"a": 0.8, "b": 1}, {"a": 0.7, "b": 2}, {"a": math.nan, "b": 0}]
    assert pareto(points, "a", "b") == [1, 0]


def test_a_full_disk_ends_the_search_and_loses_nothing(tmp_path, monkeypatch):
    real, written = os.fsync, []

    def fsync(file):
        written.append(file)
        if len(written) > 4:  # the header and three trials fit
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file)

    options = dict(evaluate=score, tuner="random", output=tmp_path, progress=QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="No space left.*earlier trials are safe in .*trials.jsonl"):
            search(None, SPACE, trials=8, **options)
    calls = []

    def evaluate(values, epochs):
        calls.append(values)
        return score(values)

    result = search(None, SPACE, trials=8, **{**options, "evaluate": evaluate})
    assert len(result.completed) == 8 and len(calls) <= 5


def test_a_trial_that_fills_the_disk_is_no_failed_trial(tmp_path, monkeypatch):
    calls = []

    def evaluate(values, epochs):
        calls.append(values)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return score(values)

    def write_best(*_):
        raise OSError(errno.ENOSPC, "No room for this either")

    options = dict(evaluate=evaluate, tuner="random", trials=5, output=tmp_path, progress=QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(SearchResult, "write_best", write_best)
        with pytest.raises(OSError, match="No space left.*earlier trials are safe in .*trials.jsonl"):
            search(None, SPACE, **options)
    result = search(None, SPACE, **options)
    assert len(result.completed) == len(result.trials) == 5 and len(calls) == 6


def test_time_is_a_budget_and_an_interruption_leaves_results(tmp_path):
    def slow(values, epochs):
        time.sleep(0.3)
        return score(values)

    options = dict(tuner="random", trials=1000, progress=QUIET)
    result = search(None, SPACE, evaluate=slow, seconds=1.0, output=tmp_path / "time", **options)
    assert 1 <= len(result.trials) <= 5

    def interrupted(values, epochs):
        if values["layers"] == 3:
            raise KeyboardInterrupt
        return score(values)

    with pytest.raises(KeyboardInterrupt):
        search(None, SPACE, evaluate=interrupted, output=tmp_path / "stop", **options)
    files = {path.name for path in (tmp_path / "stop").iterdir()}
    assert "trials.jsonl" in files, "what ended before is kept"


def test_a_space_comes_from_a_file(tmp_path):
    path = tmp_path / "space.json"
    path.write_text('{"rate": {"low": 0.01, "high": 1, "log": true}, "bits": [null, "int8"]}')
    assert read_space(path) == {"rate": Range(0.01, 1, log=True), "bits": [None, "int8"]}
    for text in ("[1, 2]", "{", '{"rate": {"least": 1}}', "{}"):
        path.write_text(text)
        with pytest.raises(ValueError, match="`space` must be"):
            read_space(path)
