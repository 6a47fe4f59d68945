"""What a recipe tells the person who waits for it: stages, a bar for each, and results."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tfopt._optional import is_installed


class ConsoleProgress:
    """Live progress bars on a terminal and in notebooks; plain lines where output is neither.

    Args:
        console: Where to write; None is standard output, or the cell of a notebook. A `Console(quiet=True)`
            writes nothing.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or _standard_output()

    def say(self, message: Any) -> None:
        """Writes a line, or anything that rich can draw."""
        # As it is: paths may hold what looks like rich's markup, and must not be broken at the margin.
        self.console.print(message, markup=False, soft_wrap=isinstance(message, str))

    @contextlib.contextmanager
    def bar(self, title: str, total: int | None) -> Iterator["Bar"]:
        """A bar for one piece of work, which stays as a line when it is done."""
        columns = (
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[status]}"),
        )
        with Progress(*columns, console=self.console) as progress:
            yield Bar(progress, progress.add_task(title, total=total, status=""))


def _standard_output() -> Console:
    console = Console(highlight=False)
    # A notebook needs ipywidgets to redraw a bar. Without it rich draws none and warns: lines are better.
    if console.is_jupyter and not is_installed("ipywidgets"):
        return Console(highlight=False, force_jupyter=False)
    return console


class Bar:
    """Moves one bar and shows a few words behind it."""

    def __init__(self, progress: Progress, task: Any) -> None:
        self._progress, self._task = progress, task

    def advance(self) -> None:
        """One unit further."""
        self._progress.update(self._task, advance=1)

    def move_to(self, done: int) -> None:
        """To so many units."""
        self._progress.update(self._task, completed=done)

    def show(self, status: str) -> None:
        """Replaces the words behind the bar."""
        self._progress.update(self._task, status=status)


class BatchProgress(keras.callbacks.Callback):
    """Moves a bar by one for each batch of `fit`.

    Args:
        bar: The bar.
        text: What to write behind it about the logs of an epoch, besides the loss.
    """

    def __init__(self, bar: Bar, text: Callable[[dict[str, float]], str]) -> None:
        super().__init__()
        self._bar, self._text, self._done = bar, text, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """A run that goes on begins where it was."""
        self._done = 0
        self._bar.move_to(epoch * self.params["steps"])

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """To behind this batch; Keras names only the last of those that one execution takes."""
        while self._done < min(batch + 1, self.params["steps"]):
            self._done += 1
            self._bar.advance()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Shows what this epoch reached."""
        logs = logs or {}
        words = [f"loss {logs['loss']:.3f}" if "loss" in logs else "", self._text(logs)]
        self._bar.show(", ".join(filter(None, words)))
