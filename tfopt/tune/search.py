"""`search`: better settings for the main job, or for any training function, found by trying them."""

import contextlib
import errno
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from tfopt._checks import check_choice, check_integer, check_number, message
from tfopt._optional import require
from tfopt.distribute.devices import set_threads
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.progress import ConsoleProgress
from tfopt.tune.finetuning import (
    check_metrics,
    check_settings,
    default_space,
    epochs_of,
    evaluate_finetuning,
    held_back,
    values_as_they_are,
)
from tfopt.tune.hypermodel import space_of
from tfopt.tune.journal import Journal, Trial, in_words
from tfopt.tune.objective import Objective, objectives_of
from tfopt.tune.report import write_search_report
from tfopt.tune.result import SearchResult
from tfopt.tune.space import Domain, Space, check_space, describe, hyperparameters, values_of
from tfopt.tune.tuner import TUNERS, is_worker, make_oracle, run_trials

_EPOCHS = 9  # the most of Hyperband: trainings of 1, 3 and 9
Evaluate = Callable[[dict[str, Any], int | None], Mapping[str, float]]


def search(
    data: Any,
    space: Space | None = None,
    *,
    tuner: str = "hyperband",
    objective: str | Objective | Sequence[str | Objective] = "accuracy",
    trials: int = 20,
    seconds: float | None = None,
    epochs: int | None = None,
    config: FinetuneConfig | None = None,
    evaluate: Evaluate | None = None,
    output: str | pathlib.Path = "runs/search",
    seed: int = 0,
    progress: ConsoleProgress | None = None,
) -> SearchResult:
    """Tries settings of the main job, or of your own training function, and keeps the best.

    The test split is never looked at: trials are scored on the validation split. Run it again with the
    same arguments to go on where it stopped; trials that ended are not run a second time. The first trial
    is the main job as `config` has it, if that is a point of the space: what is found is never worse there.
    Started by `tfopt launch --tuner`, one process hands out the trials and the others run them.

    Do not use it for a setting that can be measured without training, such as `jit_compile` or the number
    of threads: `tune_throughput` finds those in a minute.

    Args:
        data: What `tfopt.data.load` takes or returns. With `evaluate`: None, or a name for the journal.
        space: Setting -> list of values or `Range`. With `evaluate` any names, and `When` for settings that
            matter only with some values of another; else fields of `FinetuneConfig`, by default those that
            matter most.
        tuner: "hyperband" (short trials first, the best again and longer; the best of all is that of
            the longest training), "bayesian" (a Gaussian process
            on the results), "random", or "grid" (every combination; a range gives ten values).
        objective: Name of a metric of the trials, or an `Objective` with a direction or a trade-off. Several,
            with the tuners "random" and "grid": `front` of the result holds the trials that no other beats in
            all of them, and the best is that of the first.
        trials: Most trials to run, >= 1.
        seconds: Wall time after which no new trial begins; None sets no limit.
        epochs: The longest training that Hyperband gives to a trial, >= 1. None: that of the main job, or 9
            with `evaluate`. The other tuners leave the epochs to the settings.
        config: Settings of the main job that are not searched.
        evaluate: Trains and scores: (values, epochs or None) -> metrics. Any model, optimizer and callback
            fits in it; a `HyperModelJob` makes it of a `HyperModel` of keras-tuner, and has the space. An
            exception or a NaN makes a failed trial, not the end of the search.
        output: Folder of the results: `trials.jsonl`, `best.json` and `report.html`.
        seed: Decides what is drawn.
        progress: Where to report; None is the terminal.

    Raises:
        ValueError: If the space is empty or has names that are no settings, no trial reports the
            objective, or `output` holds a search over something else.
        RuntimeError: If every trial failed.

    Example:
        >>> space = {"rate": Range(0.01, 1.0, log=True), "layers": [1, 2, 3]}
        >>> def evaluate(values, epochs):
        ...     return {"accuracy": 1 - abs(values["rate"] - 0.1) - 0.01 * values["layers"]}
        >>> result = search(None, space, evaluate=evaluate, tuner="random", trials=9)
        >>> sorted(result.best.values)
        ['layers', 'rate']

    References:
        Li et al., "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization", JMLR 2018.
        arXiv:1603.06560
    """
    check_choice("tuner", tuner, TUNERS)
    check_integer("trials", trials, minimum=1)
    if epochs is not None:
        check_integer("epochs", epochs, minimum=1)
    if seconds is not None:
        check_number("seconds", seconds, minimum=0, open_minimum=True)
    require("keras_tuner", "`search`")  # before the images are read
    wanted, *further = objectives_of(objective, tuner)
    folder, fixed, kept = pathlib.Path(output), config or FinetuneConfig(), {}
    start = None
    if evaluate is None:
        check_metrics([name for each in (wanted, *further) for name in (each.metric, *each.trade_off)])
        if fixed.threads != "auto":
            set_threads(fixed.threads)  # before TensorFlow starts, which loading does
        images = held_back(data, fixed)
        searched = default_space(fixed, images) if space is None else space
        settings = check_settings(check_space(searched))
        if tuner == "hyperband" and "epochs" in settings:
            expected = "without 'epochs', which Hyperband decides"
            fix = "Take another `tuner`; `epochs` of `config` is its longest training."
            raise ValueError(message("space", expected, sorted(settings), fix))
        data, kept = images.class_counts, fixed.to_dict()
        evaluate = evaluate_finetuning(images, fixed, settings, folder)
        epochs = epochs or epochs_of(images, fixed)
        start = values_as_they_are(fixed, images, settings)
        checked: Mapping[str, Domain] = settings
    else:
        checked = check_space(space_of(evaluate, space))
    header = {"space": describe(checked), "tuner": tuner, "seed": seed, "epochs": epochs, "data": data}
    same = {name: value for name, value in kept.items() if name not in ("output", "overwrite", *checked)}
    journal = Journal(folder / "trials.jsonl", {**header, "config": same})
    runner = _Runner(journal, checked, evaluate, (wanted, *further), progress or ConsoleProgress())
    until = math.inf if seconds is None else time.monotonic() + seconds
    oracle = make_oracle(
        tuner,
        hyperparameters(checked, start),
        direction=str(wanted.direction),
        epochs=epochs or _EPOCHS,
        seed=seed,
        has_budget=lambda count: count < trials and time.monotonic() < until,
        from_defaults=start is not None,
    )
    try:
        run_trials(oracle, runner.run, runner.failed)
    except BaseException as error:  # an interrupted search has results too; on a full disk they have no room
        with contextlib.suppress(OSError):
            _write_results(SearchResult(list(journal.trials().values()), wanted, folder, further), kept)
        if isinstance(error, _fatal()):  # keras-tuner passes no other error on
            raise error.__cause__ or error from None
        raise
    result = SearchResult(list(journal.trials().values()), wanted, folder, further)
    _write_results(result, kept)
    _ = result.best  # or the error that says why there is none
    return result


def _write_results(result: SearchResult, kept: Mapping[str, Any]) -> None:
    """The best settings and the report, unless this is one of several processes."""
    if result.completed and not is_worker():
        result.write_best(kept)
        write_search_report(result, result.report_path)


class _Runner:
    """Runs what the tuner draws, unless the journal has it already, and records what came of it."""

    def __init__(
        self,
        journal: Journal,
        space: Mapping[str, Domain],
        evaluate: Evaluate,
        objectives: Sequence[Objective],
        progress: ConsoleProgress,
    ) -> None:
        self._journal, self._space = journal, space
        self._evaluate, self._objectives = evaluate, objectives
        self._progress = progress

    def run(self, drawn: dict[str, Any], epochs: int | None) -> float:
        """The score of a trial; raises what the trial raises."""
        known = self._train(values_of(self._space, drawn), epochs)
        if known.error:
            return math.nan  # the oracle counts it as failed
        try:
            score, *_ = [each.score(known.metrics) for each in self._objectives]
            return score
        except ValueError as error:  # wrong for every trial: end the search, not the trial
            raise _fatal()(str(error)) from error

    def failed(self, drawn: dict[str, Any], epochs: int | None, error: str) -> None:
        """Records a failure that the journal does not know yet."""
        trial = Trial(values_of(self._space, drawn), epochs, error=error.strip())
        if trial.key not in self._journal.trials():
            self._keep(trial)

    def _train(self, values: dict[str, Any], epochs: int | None) -> Trial:
        """The trial with these settings, from the journal if it has been run."""
        known = self._journal.trials().get(Trial(values, epochs).key)
        if known is not None:
            return known
        begin = time.monotonic()
        try:
            metrics = {name: float(value) for name, value in self._evaluate(dict(values), epochs).items()}
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            full = self._journal.failed_write(error)  # so would be all later trials, and recorded as failed
            raise _fatal()(str(full)) from full
        seconds = time.monotonic() - begin
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        error = f"not finite: {', '.join(bad)}" if bad else ""
        trial = Trial(values, epochs, {} if bad else metrics, seconds, error)
        self._keep(trial)
        keras.utils.clear_session()
        return trial

    def _keep(self, trial: Trial) -> None:
        try:
            self._journal.append(trial)
        except OSError as error:  # a full disk: what is not recorded is lost
            raise _fatal()(str(error)) from error
        outcome = trial.error.splitlines()[-1] if trial.error else in_words(trial.metrics)
        epochs = {} if trial.epochs is None else {"epochs": trial.epochs}
        self._progress.say(f"{outcome}  ({in_words({**trial.values, **epochs})}; {trial.seconds:.0f} s)")


def _fatal() -> type[Exception]:
    """What ends a search of keras-tuner; any other error ends a trial only."""
    return require("keras_tuner.errors", "`search`").FatalRuntimeError
