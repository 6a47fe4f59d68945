"""`search`: finds, resumes without running twice, and turns failures into results."""

import json
import math

import pytest

from tfopt.tune import Objective, Range, search
from tfopt.tune.objective import pareto

SPACE = {"rate": Range(0.01, 1.0, log=True), "layers": [1, 2, 3], "bits": [None, "int8"]}


def score(values, epochs=None):
    return {"accuracy": 1 - abs(math.log10(values["rate"]) + 1), "bytes": 1000 * values["layers"]}


@pytest.mark.parametrize("tuner", ["random", "grid", "hyperband"])
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


def test_a_line_cut_short_costs_one_trial(tmp_path):
    options = dict(evaluate=score, tuner="random", output=tmp_path)
    search(None, SPACE, trials=4, **options)
    path = tmp_path / "trials.jsonl"
    path.write_text(path.read_text()[:-20])
    assert len(search(None, SPACE, trials=4, **options).trials) == 4


def test_trade_off_and_pareto():
    wanted = Objective("accuracy", trade_off={"bytes": 0.01})
    assert wanted.score({"accuracy": 0.9, "bytes": 1024}) == pytest.approx(0.8)
    assert Objective("val_loss").direction == "min"
    points = [{"a": 0.9, "b": 3}, {"a": 0.8, "b": 1}, {"a": 0.7, "b": 2}, {"a": math.nan, "b": 0}]
    assert pareto(points, "a", "b") == [1, 0]
