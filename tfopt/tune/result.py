"""What a search found, and the files it leaves behind."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, final

from rich.table import Table

from tfopt._table import Printable
from tfopt.report.notebook import framed
from tfopt.tune.journal import Trial, as_json, in_words, short
from tfopt.tune.objective import Objective, not_dominated, pareto

_SHOWN = 10  # trials that the table names


@final
@dataclasses.dataclass(frozen=True)
class SearchResult(Printable):
    """What a search found.

    Args:
        trials: Every trial, failed ones included, in the order in which they ended.
        objective: What was looked for.
        folder: Where `trials.jsonl`, `best.json` and `report.html` lie.
        further: Other objectives, if several were given; the first of them all is `objective`.
    """

    trials: Sequence[Trial]
    objective: Objective
    folder: pathlib.Path
    further: Sequence[Objective] = ()

    @property
    def report_path(self) -> pathlib.Path:
        """The HTML report."""
        return self.folder / "report.html"

    def _repr_html_(self) -> str:
        """The report, where Jupyter or Colab shows this result."""
        return framed(self.report_path)

    @property
    def completed(self) -> list[Trial]:
        """The trials that did not fail, the best first; those that trained longer before all shorter ones.

        A setting that leads after two epochs, as small networks and high rates do, is not the one that
        leads in the end: Hyperband's short trials choose what trains longer, the longest choose the best.
        """
        sign = 1 if self.objective.direction == "min" else -1
        scored = [(t, self.objective.score(t.metrics)) for t in self.trials if not t.error]
        finite = [(trial, sign * score) for trial, score in scored if not math.isnan(score)]
        return [trial for trial, _ in sorted(finite, key=lambda each: (-(each[0].epochs or 0), each[1]))]

    @property
    def best(self) -> Trial:
        """The best trial.

        Raises:
            RuntimeError: If no trial came to its end; the message has the error of the last one.
        """
        if not self.completed:
            last = "there was no time for a single one"
            if self.trials:
                lines = self.trials[-1].error.splitlines()
                last = lines[-1] if lines else f"no finite score: {in_words(self.trials[-1].metrics)}"
            raise RuntimeError(f"None of {len(self.trials)} trials came to its end. The last one: {last}")
        return self.completed[0]

    @property
    def front(self) -> list[Trial]:
        """The trials that no other beats in all objectives, the best in the first objective first."""
        trials, points = [], []
        for trial in self.completed:
            wanted = (self.objective, *self.further)
            scores = [each.score(trial.metrics) * (1 if each.direction == "min" else -1) for each in wanted]
            if all(map(math.isfinite, scores)):
                trials.append(trial)
                points.append(scores)
        return [trials[index] for index in not_dominated(points)]

    def pareto(self, less: str, more: str | None = None) -> list[Trial]:
        """The trials that no other beats in both metrics, the cheapest first.

        Args:
            less: The metric of which less is better, such as "bytes" or "latency_ms".
            more: The metric of which more is better; the objective's by default.
        """
        trials = self.completed
        front = pareto([trial.metrics for trial in trials], more or self.objective.metric, less)
        return [trials[index] for index in front]

    def __rich__(self) -> Table:
        """The best trials as a table for a rich console."""
        shown = self.completed[:_SHOWN]
        table = Table(caption=f"the best {len(shown)} of {len(self.trials)} trials")
        metrics = list(self.best.metrics)
        for name in metrics:
            table.add_column(name, justify="right")
        table.add_column("settings")
        for trial in shown:
            table.add_row(*(short(trial.metrics.get(name)) for name in metrics), in_words(trial.values))
        return table

    def write_best(self, fixed: Mapping[str, Any]) -> pathlib.Path:
        """Writes the best settings over the fixed ones to `best.json`, for `tfopt finetune --config`.

        Args:
            fixed: The settings that were not searched.
        """
        path = self.folder / "best.json"
        partial = path.with_suffix(".partial")
        text = json.dumps({**as_json(fixed), **as_json(self.best.values)}, indent=2)
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, path)
        return path
