"""The page about a search: what was found, what mattered, what the best cost."""

import functools
import math
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from tfopt.report.markup import Markup, tag
from tfopt.report.numbers import bytes_text, milliseconds, percent, seconds_text, significant
from tfopt.report.page import Section, data_table, render, save, tiles
from tfopt.tune.drawings import finite, parallel_coordinates, pareto_chart
from tfopt.tune.importance import importance
from tfopt.tune.journal import Trial
from tfopt.tune.result import SearchResult

_ROWS = 20
_COSTS = ("bytes", "latency_ms", "parameters")
_DIFFERENT = 1.05  # costs whose largest and smallest differ by less are taken for equal
_NAMES = {"bytes": "file size", "bytes_zipped": "zipped size", "latency_ms": "latency"}


def write_search_report(result: SearchResult, path: pathlib.Path, title: str = "Search") -> pathlib.Path:
    """Writes one self-contained HTML page: parallel coordinates, importance, Pareto front, all trials.

    Args:
        result: A search with at least one completed trial.
        path: File to write.
        title: Heading.
    """
    trials = [trial for trial in result.completed if math.isfinite(result.objective.score(trial.metrics))]
    scores = [result.objective.score(trial.metrics) for trial in trials]
    sections = [_settings(result, trials, scores), _importance(trials, scores), *_fronts(result, trials)]
    sections += [_table(result, trials), _failed(result)]
    seconds = sum(trial.seconds for trial in result.trials)
    failed = len(result.trials) - len(trials)
    best = result.best
    facts = [
        (
            f"Best {result.objective.metric}",
            write(result.objective.metric, _metric(result, best)),
            _beside(best, result),
        ),
        ("Trials", str(len(result.trials)), f"{failed} failed" if failed else "none failed"),
        ("Time", seconds_text(seconds), f"{seconds_text(seconds / len(result.trials))} per trial"),
    ]
    shown = [section for section in sections if section is not None]
    settings = ", ".join(f"{name} {_cell(value)}" for name, value in best.values.items())
    return save(path, render(title, f"Best: {settings}", tiles(facts), shown))


def write(name: str, value: float) -> str:
    """A metric in its unit."""
    if name.startswith("bytes"):
        return bytes_text(value)
    if name.endswith("_ms"):
        return milliseconds(value)
    return percent(value) if name.endswith("accuracy") else significant(value)


def _metric(result: SearchResult, trial: Trial) -> float:
    return trial.metrics[result.objective.metric]


def _beside(trial: Trial, result: SearchResult) -> str:
    others = [name for name in result.objective.trade_off if name in trial.metrics]
    return ", ".join(write(name, trial.metrics[name]) for name in others)


def _settings(result: SearchResult, trials: Sequence[Trial], scores: Sequence[float]) -> Section | None:
    if len(trials) < 2:
        return None
    name = "score" if result.objective.trade_off else result.objective.metric
    lengths = len({trial.epochs for trial in trials}) > 1
    values = [{**trial.values, "epochs": trial.epochs} if lengths else trial.values for trial in trials]
    chart = parallel_coordinates(values, scores, name, trials.index(result.best))
    lead = "Each line is a trial and crosses every axis at its setting. The best one is orange."
    return Section("settings", "Settings", chart, lead)


def _importance(trials: Sequence[Trial], scores: Sequence[float]) -> Section | None:
    shares = importance([trial.values for trial in trials], _without_length(trials, scores))
    if not shares:
        return None
    rows = [[name.replace("_", " "), percent(share, 0), _bar(share)] for name, share in shares.items()]
    lead = (
        "How much of the differences between trials each setting explains by itself, beyond what chance "
        f"would. {len(trials)} trials" + (": take it as a hint." if len(trials) < 30 else ".")
    )
    return Section("importance", "What mattered", data_table(["setting", "explains", ""], rows), lead)


def _without_length(trials: Sequence[Trial], scores: Sequence[float]) -> list[float]:
    """Scores less the mean of the trials that trained as long: how long they did is no setting."""
    groups: dict[int | None, list[float]] = {}
    for trial, score in zip(trials, scores):
        groups.setdefault(trial.epochs, []).append(score)
    return [score - statistics.fmean(groups[trial.epochs]) for trial, score in zip(trials, scores)]


def _bar(share: float) -> Markup:
    line = tag("line", x1=2.0, x2=2 + 240 * share, y1=8, y2=8, class_="whisker s1")
    return tag("svg", line, viewBox="0 0 244 16", class_="interval", aria_hidden="true")


def _fronts(result: SearchResult, trials: Sequence[Trial]) -> list[Section]:
    """A section for each cost that differs between trials."""
    more = result.objective.metric
    sections = []
    for less in dict.fromkeys((*result.objective.trade_off, *_COSTS)):
        usable = [t for t in trials if finite(t.metrics, less, more) and t.metrics[less] > 0]
        costs = [trial.metrics[less] for trial in usable]
        if result.objective.direction == "max" and costs and max(costs) > _DIFFERENT * min(costs):
            sections.append(_front(result, usable, less, more))
    return sections


def _front(result: SearchResult, usable: Sequence[Trial], less: str, more: str) -> Section:
    front = [usable.index(trial) for trial in result.pareto(less) if trial in usable]
    points = [(trial.metrics[less], trial.metrics[more]) for trial in usable]
    writers = functools.partial(write, less), functools.partial(write, more)
    names = _NAMES.get(less, less.replace("_", " ")), more.replace("_", " ")
    best = usable.index(result.best) if result.best in usable else None  # its cost was not measured
    chart = pareto_chart(points, front, best, names, writers)
    rows = [
        [write(less, points[i][0]), write(more, points[i][1]), *map(_cell, usable[i].values.values())]
        for i in front
    ]
    table = data_table([*names, *usable[0].values], rows)
    title = f"{names[1].capitalize()} against {names[0]}"
    lead = "No other trial beats those on the line in both. The best by the objective is orange."
    return Section(f"front-{less}", title, tag("div", chart, table), lead)


def _table(result: SearchResult, trials: Sequence[Trial]) -> Section:
    metrics = list(result.best.metrics)
    head = ["", *result.best.values, "epochs", *metrics, "time"]
    rows: list[list[Any]] = []
    for rank, trial in enumerate(trials[:_ROWS], 1):
        found = [write(name, trial.metrics[name]) if name in trial.metrics else "" for name in metrics]
        settings = [_cell(value) for value in trial.values.values()]
        rows.append([str(rank), *settings, _cell(trial.epochs or ""), *found, seconds_text(trial.seconds)])
    lead = f"The best {_ROWS} of {len(trials)}." if len(trials) > _ROWS else ""
    return Section("trials", "Trials", data_table(head, rows), lead)


def _failed(result: SearchResult) -> Section | None:
    failed = [trial for trial in result.trials if trial.error]
    if not failed:
        return None
    rows = [
        [", ".join(f"{k} {_cell(v)}" for k, v in trial.values.items()), trial.error.splitlines()[-1][:200]]
        for trial in failed
    ]
    return Section("failed", "Failed trials", data_table(["settings", "error"], rows, numeric_from=2))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return significant(value)
    return "none" if value is None else str(value)
