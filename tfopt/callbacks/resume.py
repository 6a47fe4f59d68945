"""Goes on after an interruption as if there had been none."""

import logging
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from tfopt import _keras_internals
from tfopt._checks import check_integer, check_number, message
from tfopt._fit_data import read_batches
from tfopt.callbacks import _past, _snapshot
from tfopt.callbacks._agreement import Agreement, Termination, worker_of
from tfopt.callbacks._checkpoint import CheckpointFolder
from tfopt.callbacks._csv_rows import begin_anew
from tfopt.callbacks._fit_end import FitEnd, callbacks_after
from tfopt.callbacks._rate import Progress
from tfopt.callbacks._settings import Settings
from tfopt.callbacks._state import KerasCallback

_LOG = logging.getLogger(__name__)
_SHARE = 0.02  # of the time may be spent on saving


class Resume(KerasCallback):
    """Saves the run now and then; the same script, started again, ends with bit-identical weights.

    Use it for every run that may be killed: preemptible machines, time limits, power cuts. It must be
    the first callback, and one folder belongs to one `fit`.

    Saved are the weights, the seeds of random layers (which `.keras` files lack), metrics, optimizer and
    wrapper variables, the state of all callbacks (tfopt's; the plain attributes of any other, so
    `EarlyStopping`, `ReduceLROnPlateau`, `ModelCheckpoint` and `History` too) and the position in the
    data. How exact a restart is depends on the data:

        data=pipeline(...) of tfopt,    inside an epoch, without reading what was seen
             sharded(...)
        data=pipeline(..., epochs=E),   inside an epoch, by reading past what was seen, that of earlier
             ramped_batches(...), or    epochs too. Bit-identical if the data are, in a new process: with
             anything else that `fit`   `shuffle(seed=...)`, without `deterministic=False`, and with
             takes                      `keras.utils.set_random_seed` for arrays and a `PyDataset`
        data=None                       from the last epoch boundary; bit-identical if the data are the
                                        same in each epoch

    Batches that were trained on before appear in the progress bar but are not trained on again. A run
    that ended returns at once, with its final weights and history. Files are written aside, synced and
    renamed; a damaged one is skipped with a warning, one of another model refused.

    State is restored, never configuration: patience, paths, rates and steps are those of the script that
    runs. Another optimizer class is refused. A state with NaN or infinite values is not saved: the last
    finite checkpoint is kept, the next start says so and goes on from there.

    SIGTERM, by which schedulers announce the end, and Ctrl-C make all workers save at the same batch and
    leave `fit` by `SystemExit(143)` or `KeyboardInterrupt`; without `data` they leave with what is saved. A
    second signal acts at once, without saving. Signals are heard by a `fit` in the main thread, and handlers
    of your own are left alone. Python's handlers are back when `fit` is left, also by an exception.

    Several workers must share the folder; each has its own files in it, since metrics under way and states
    of callbacks differ.

    Args:
        directory: Folder for the checkpoints.
        data: What `fit` gets as `x`: a dataset of `tfopt.data` or any other, a `keras.utils.PyDataset`,
            arrays or a generator.
        every_seconds: Shortest time between two saves, >= 0; stretched so that saving takes no more than
            2 % of the time. 0 saves after every batch.
        every_batches: Save after so many batches instead, >= 1.
        keep: Number of checkpoints to keep, >= 1.
        allow_changes: Hyperparameters of the optimizer that the script may change, such as
            `["learning_rate"]`; any other change is refused. None allows all and logs a warning for each.

    Raises:
        ValueError: When training begins, if the checkpoint is of another model or other callbacks, or from
            inside an epoch of other batches; if this is not the first callback; if workers do not see the
            same files.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> resume = tfopt.callbacks.Resume("run/checkpoints")
        >>> history = model.fit(np.ones((8, 4)), np.ones(8), epochs=3, callbacks=[resume], verbose=0)

    Differs from Keras's `BackupAndRestore`: see above; it saves weights and the epoch number only.
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        data: Any = None,
        *,
        every_seconds: float = 30.0,
        every_batches: int | None = None,
        keep: int = 2,
        allow_changes: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.directory = pathlib.Path(directory)
        if isinstance(data, str | bytes | bool | int | float):
            raise TypeError(message("data", "what `fit` gets as `x`", data))
        self.data = data
        self.every_seconds = check_number("every_seconds", every_seconds, minimum=0.0)
        if every_batches is not None:
            check_integer("every_batches", every_batches, minimum=1)
        self.every_batches = every_batches
        self.keep = check_integer("keep", keep, minimum=1)
        if isinstance(allow_changes, str):
            raise TypeError(message("allow_changes", "a list of names", allow_changes))
        self.allow_changes = None if allow_changes is None else list(allow_changes)

    def on_train_begin(self, logs: Any = None) -> None:
        """Looks for a checkpoint and makes `fit` begin at its epoch."""
        self._others = callbacks_after(self)
        self._worker = worker_of(self.model.distribute_strategy)
        self._folder = CheckpointFolder(self.directory, self.keep, self._worker)
        _keras_internals.build_for_training(self.model, _past.batch_spec(self.data))
        self._variables = _snapshot.variables_of(self.model, metrics=self.data is not None)
        self._batches = self._epochs_run = 0
        self._saved_at, self._cost = time.monotonic(), 0.0
        self._agreement = Agreement(self.model.distribute_strategy, self._worker[1])
        self._train: Any = None  # the training function that lets batches pass, and the one it stands for
        self._termination = Termination()
        self._fit_end = FitEnd(self._clean_up)
        exact = "the last epoch boundary" if self.data is None else "any batch"
        _LOG.info("Resume: a restart is exact from %s.", exact)
        self._settings = Settings(self.model, self._variables)
        self._progress = Progress(self, self.model)
        self._first: Any = None  # states of the callbacks before the first epoch
        found = self._folder.latest()
        self._folder.say_divergence()
        self._number = self._folder.unused() if found is None else found[0] + 1
        if not self._agreement.same(-1 if found is None else found[0]):
            raise ValueError(f"The workers see different checkpoints in {self.directory}. Is it one folder?")
        self._state: Any = None if found is None else found[1]  # until it is restored
        if found is not None:
            self._check()
            epoch = self.params["epochs"] if found[1]["stopped"] else found[1]["epoch"]
            _keras_internals.begin_at_epoch(self.model, epoch)
            _LOG.info("Resume: goes on in epoch %d.", epoch)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Saves at the boundary, or restores at the epoch where the interrupted run was."""
        # `fit` has read it. A kept exception may delay `_clean_up`, and a later `fit` would begin there.
        _keras_internals.begin_at_epoch(self.model, None)
        self._epoch, self._executions, self._passed = epoch, 0, 0
        if self._first is None:
            if self._state is None:
                begin_anew(self._others, self._folder.rows)
            self._first, self._first_epoch = _snapshot.read_callbacks(self._others), epoch
        if self._epochs_run == 0:  # not before: errors in `on_train_begin` of others are noticed late
            self._termination.listen(self._fit_end.is_over)
        if self._state is None:
            self._save_or_stop()
        else:
            self._restore()
            self._passed = self._state["executions"]
            self._first_epoch = self._state.get("first_epoch", 0)
            _past.read_epochs(self.data, epoch - self._first_epoch, self.model.steps_per_execution)
        self._epochs_run += 1
        position = _past.position_of(self.data)
        if position is not None:
            position.set(epoch=epoch, batch=self._passed * self.model.steps_per_execution)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Saves what all callbacks have seen of the batches before this one."""
        if self._state is None:
            if self._executions:
                self._save_or_stop()
            return
        if self._executions == 0:
            self._let_pass()
        if self._executions == self._passed:
            if self._passed:
                self._restore()  # once more: the other callbacks have heard of the batches passed by
            self._state = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts."""
        self._executions += 1
        self._batches += 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Says once if an optimizer may have been overlooked: a model may also change its weights itself."""
        if self._epochs_run == 1 and self._state is None:
            self._progress.warn()

    def on_train_end(self, logs: Any = None) -> None:
        """Saves the end, or brings it back if the run was over already."""
        self._fit_end.now()
        if self._state is not None and self._epochs_run == 0:
            self._restore()
        elif self._epochs_run:
            self._epoch, self._executions = self._epoch + 1, 0
            self._save(stopped=bool(self.model.stop_training))
        if self._termination.asked:  # during the last validation
            self._termination.leave()

    def _clean_up(self) -> None:
        """Leaves signals and model to others, also if an exception ends `fit`."""
        self._termination.forget()
        self._settings.leave()
        _keras_internals.begin_at_epoch(self.model, None)
        passing, train = self._train or (None, None)
        if passing is not None and self.model.train_function is passing:  # else it was made anew since
            self.model.train_function = train
        self._train = None

    def _save_or_stop(self) -> None:
        """Saves if it is time to, or if a signal came; all workers do the same."""
        boundary = self._executions == 0
        asked = self._termination.asked is not None
        stop, due = self._agreement.any(asked, self._is_time(), now=boundary)
        due = due if self.every_batches is None else self._batches >= self.every_batches
        if (due or stop) and self._batches and (boundary or self.data is not None):
            self._save()
        if stop:
            _LOG.warning("Resume: stops in epoch %d. Start the same script again to go on.", self._epoch)
            self._termination.leave()

    def _is_time(self) -> bool:
        waited = time.monotonic() - self._saved_at
        return waited >= max(self.every_seconds, self._cost / _SHARE) if self.every_seconds else True

    def _save(self, stopped: bool = False) -> None:
        begin = time.monotonic()
        values = _snapshot.read_variables(self._variables, self.model.distribute_strategy)
        wrong = _snapshot.first_not_finite(self._variables, values)
        if wrong is not None:
            self._folder.note_divergence(self._epoch, wrong)
            return
        state = {
            "epoch": self._epoch,
            "executions": self._executions,
            "first_epoch": self._first_epoch,
            "stopped": stopped,
            "steps": self._steps,
            "settings": self._settings.state,
            "variables": values,
            "callbacks": _snapshot.read_callbacks(self._others, self._first),
        }
        self._folder.save(self._number, state)
        self._number += 1
        self._batches, self._saved_at = 0, time.monotonic()
        self._cost = self._saved_at - begin

    def _check(self) -> None:
        values, states = self._state["variables"], self._state["callbacks"]
        try:
            if "settings" in self._state:
                self._settings.check(self._state["settings"], self.allow_changes)
            _snapshot.check_fit(self._variables, values, self._others, states)
            if self._state["executions"]:
                _snapshot.check_steps(self._steps, self._state.get("steps", self._steps))
        except ValueError as error:
            raise ValueError(
                f"The checkpoint in {self.directory} does not fit this run. {error} Use another `directory`, "
                "or delete this one."
            ) from error

    @property
    def _steps(self) -> list[Any]:
        """Batches per epoch and per execution, in which the place inside an epoch is counted."""
        return [self.params["steps"], self.model.steps_per_execution]

    def _restore(self) -> None:
        strategy = self.model.distribute_strategy
        _snapshot.write_variables(self._variables, self._state["variables"], strategy)
        if "settings" in self._state:
            self._settings.apply(self._state["settings"])
        _snapshot.write_callbacks(self._others, self._state["callbacks"])

    def _let_pass(self) -> None:
        """Makes the training function read the batches that were trained on before, and no more."""
        if self.data is None:
            return
        train, size = self.model.train_function, self.model.steps_per_execution

        def function(iterator: Any) -> Any:
            if self._executions >= self._passed:
                return train(iterator)
            read_batches(iterator, size)
            return self.model.get_metrics_result()

        self.model.train_function = function
        self._train = function, train
