"""The page about a search: importance against known effects, charts that survive odd trials, escaping."""

import math
import re

import numpy as np
import pytest

from tfopt.report.numbers import milliseconds, percent
from tfopt.tune import Objective, SearchResult, Trial
from tfopt.tune.drawings import parallel_coordinates, pareto_chart
from tfopt.tune.importance import importance
from tfopt.tune.report import write_search_report


def trials(count=40, noise=0.0):
    generator = np.random.default_rng(0)
    found = []
    for _ in range(count):
        values = {
            "rate": float(10 ** generator.uniform(-4, -1)),
            "kind": str(generator.choice(["a", "<b>"])),
            "layers": [1, 2, 3][generator.integers(3)],
            "cut": [None, 0.5][generator.integers(2)],
        }
        accuracy = 0.9 - 0.1 * abs(math.log10(values["rate"]) + 2) + 0.02 * values["layers"]
        metrics = {"accuracy": accuracy + noise * generator.normal(), "bytes": 1000.0 * values["layers"]}
        found.append(Trial(values, None, metrics, seconds=2.0))
    return found


def test_importance_finds_what_matters():
    found = trials(200)
    shares = importance([t.values for t in found], [t.metrics["accuracy"] for t in found])
    assert list(shares)[:2] == ["rate", "layers"] and shares["rate"] > 0.5
    assert shares["kind"] < 0.05 and shares["cut"] < 0.05
    noise = np.random.default_rng(1).normal(size=12)
    assert max(importance([t.values for t in trials(12)], noise).values()) < 0.5, "chance is taken off"
    assert importance([{"a": 1}] * 3, [1.0, 2.0, 3.0]) == {}
    assert importance([{"a": 1}, {"a": 2}] * 3, [1.0] * 6) == {}
    perfect = importance([{"a": index % 2, "b": 1} for index in range(8)], [0.0, 1.0] * 4)
    assert perfect["a"] == pytest.approx(1.0) and perfect["b"] == 0.0


def test_the_page_shows_settings_fronts_and_failures(tmp_path):
    failed = Trial(
        {"rate": 0.1, "kind": "a", "layers": 1, "cut": None}, error="Traceback\nValueError: <boom>"
    )
    odd = Trial({"rate": 0.1, "kind": "a", "layers": 1, "cut": None}, 3, {"accuracy": 0.5})  # no bytes
    result = SearchResult([*trials(), failed, odd], Objective("accuracy", trade_off={}), tmp_path)
    page = write_search_report(result, tmp_path / "report.html").read_text()
    for title in ("Settings", "What mattered", "Accuracy against file size", "Trials", "Failed trials"):
        assert f"<h2>{title}</h2>" in page
    assert page.count('class="line s1"') + page.count('class="line s2"') >= 41, "one line per trial"
    assert "ValueError: &lt;boom&gt;" in page and "<boom>" not in page and "&lt;b&gt;" in page
    assert not re.search(r"nan|None\b", page) and "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize("settings", [3, 10])
def test_names_of_axes_leave_each_other_room(settings):
    values = [{f"setting_{n}": n * trial for n in range(settings)} for trial in range(3)]
    page = str(parallel_coordinates(values, [0.1, 0.2, 0.3], "accuracy", best=2))
    titles = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="stage">', page)
    assert len(titles) == settings + 1
    for row in {y for _, y in titles}:
        places = [float(x) for x, y in titles if y == row]
        assert min(np.diff(places)) > 90, "15 letters"


@pytest.mark.parametrize("direction", ["min", "max"])
def test_the_best_trial_is_on_top_in_either_direction(tmp_path, direction):
    found = [Trial({"a": value}, None, {"loss": value}) for value in (3.0, 1.0, 2.0)]
    result = SearchResult(found, Objective("loss", direction), tmp_path)
    page = write_search_report(result, tmp_path / "report.html").read_text()
    best = "1.00" if direction == "min" else "3.00"
    orange = re.search(r'<polyline points="[^"]*" class="line s2"><title>a ([\d.]+)', page)
    assert orange and orange[1] == best
    assert "What mattered" not in page, "three trials say nothing about it"


def test_one_trial_is_enough(tmp_path):
    result = SearchResult([Trial({"a": 1}, None, {"accuracy": 0.5, "bytes": 10.0})], Objective(), tmp_path)
    page = write_search_report(result, tmp_path / "report.html").read_text()
    assert "50.0" in page and "<h2>Settings</h2>" not in page


def test_no_two_marks_of_a_chart_read_the_same():
    points = [(0.1302 + 0.001 * k, 0.9501 + 0.0001 * k) for k in range(6)]
    chart = pareto_chart(points, [5], 5, ("latency", "accuracy"), (milliseconds, percent))
    marks = re.findall(r'class="tick[^>]*>([^<]+)<', chart)
    assert len(marks) == len(set(marks)) and {"0.13\u202fms", "0.14\u202fms"} <= set(marks)
