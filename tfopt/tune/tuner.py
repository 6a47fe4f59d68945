"""keras-tuner's oracles, driven by our own trials: no model is built or saved by keras-tuner itself."""

import os
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from tfopt._optional import require

Run = Callable[[dict[str, Any], int | None], float]

TUNERS = {
    "hyperband": "HyperbandOracle",
    "bayesian": "BayesianOptimizationOracle",
    "random": "RandomSearchOracle",
    "grid": "GridSearchOracle",
}
WORKERS_VARIABLE = "TFOPT_TUNER_WORKERS"  # set by `tfopt launch --tuner`: how many workers to wait for
_POLL_SECONDS = 0.2


def make_oracle(
    name: str,
    hyperparameters: Any,
    *,
    direction: str,
    epochs: int,
    seed: int,
    has_budget: Callable[[int], bool],
    from_defaults: bool = False,
) -> Any:
    """A keras-tuner oracle that also stops when the budget is used up.

    Args:
        name: Key of `TUNERS`.
        hyperparameters: keras-tuner's description of the space.
        direction: "max" or "min", of the score.
        epochs: The longest training that Hyperband gives to a trial.
        seed: Decides what is drawn.
        has_budget: Called with the number of trials so far; False ends the search.
        from_defaults: Whether the first trial has the defaults of `hyperparameters`, as in a grid anyway.
    """
    oracles = require("keras_tuner.oracles", "`tfopt.tune.search`")
    objective = require("keras_tuner", "`tfopt.tune.search`").Objective("score", direction)
    one_thread = require("threadpoolctl", "`tfopt.tune.search`").threadpool_limits
    kind: Any = oracles.__dict__[TUNERS[name]]

    class Limited(kind):  # type: ignore[valid-type]
        """Adds the budget to the oracle's own rule for stopping, and knows which workers it has sent home."""

        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.seen: set[str] = set()
            self.sent_home: set[str] = set()

        def populate_space(self, trial_id: str) -> dict[str, Any]:
            """Draws the next trial, or stops."""
            if not has_budget(len(self.trials)):
                return {"status": "STOPPED"}
            if from_defaults and not self.trials and name != "grid":
                values = {each.name: each.default for each in self.get_space().space}
                if name == "hyperband":  # as long as the longest, and in no bracket
                    values["tuner/epochs"] = epochs
                return {"status": "RUNNING", "values": values}
            with one_thread(1):  # the Gaussian process is so small that threads make it 5 times slower
                return super().populate_space(trial_id)

        def create_trial(self, tuner_id: str) -> Any:
            """The next trial of a worker."""
            self.seen.add(tuner_id)
            trial = super().create_trial(tuner_id)
            if trial.status == "STOPPED":
                self.sent_home.add(tuner_id)
            return trial

    options: dict[str, Any] = {"max_epochs": epochs} if name == "hyperband" else {"max_trials": None}
    never = 10**9  # a failed trial is a result: the search ends when its budget does
    oracle = Limited(
        objective=objective,
        hyperparameters=hyperparameters,
        allow_new_entries=False,
        tune_new_entries=False,
        seed=seed + 1,  # keras-tuner takes 0 for "none given"
        max_consecutive_failed_trials=never,
        **options,
    )
    oracle.verbose = 0
    return oracle


def run_trials(oracle: Any, run: Run, on_error: Callable[[dict[str, Any], int | None, str], None]) -> None:
    """Asks the oracle for trials and runs them until it says stop; in a chief, serves them to workers.

    Args:
        oracle: Result of `make_oracle`.
        run: Takes the drawn values and the epochs (None if the oracle has no say in them); returns the score.
        on_error: Told of a trial that raised: its values, its epochs and the traceback.
    """
    base = require("keras_tuner.engine.base_tuner", "`tfopt.tune.search`").BaseTuner

    class Tuner(base):  # type: ignore[valid-type]
        """Hands each trial to `run`."""

        def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
            """The score under the only name that the oracle knows."""
            return {"score": run(*_drawn(trial))}

        def on_trial_end(self, trial: Any) -> None:
            """Reports a failure with its text."""
            if trial.status != "COMPLETED":
                on_error(*_drawn(trial), trial.message or "")
            super().on_trial_end(trial)

        def save(self) -> None:
            """Nothing: the journal is the record."""

    with tempfile.TemporaryDirectory() as folder:  # keras-tuner insists on writing its own state
        tuner = Tuner(oracle, directory=folder, project_name="oracle")
        if is_chief():
            _serve(tuner, oracle)
        else:
            tuner.search()


def is_chief() -> bool:
    """Whether this process hands out the trials of a parallel search (`tfopt launch --tuner`)."""
    return "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")


def is_worker() -> bool:
    """Whether this process runs trials that a chief hands out."""
    return "KERASTUNER_ORACLE_IP" in os.environ and not is_chief()


def _serve(tuner: Any, oracle: Any) -> None:
    """Serves until every worker was sent home; keras-tuner's own chief looks only every 20 seconds."""
    server = threading.Thread(target=tuner.search, daemon=True)
    server.start()
    workers = int(os.environ.get(WORKERS_VARIABLE, "1"))
    while server.is_alive():
        time.sleep(_POLL_SECONDS)
        home = oracle.sent_home
        if len(home) >= workers and home >= oracle.seen and not oracle.ongoing_trials:
            time.sleep(1.0)  # lets the last answer reach its worker
            return


def _drawn(trial: Any) -> tuple[dict[str, Any], int | None]:
    values = dict(trial.hyperparameters.values)
    return values, values.get("tuner/epochs")
