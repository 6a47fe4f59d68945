"""What workers decide together between two batches: to save, or to stop because one was asked to."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, ClassVar, NoReturn

import tensorflow as tf

_LOG = logging.getLogger(__name__)
_SECONDS = 0.5  # between two questions, about: each is a small reduction over all workers


class Agreement:
    """Tells every worker what any worker wants, so that none goes on alone and waits for ever.

    Args:
        strategy: What the model trains under.
        workers: Their number; a single one decides by itself.
    """

    def __init__(self, strategy: tf.distribute.Strategy, workers: int) -> None:
        self._mean = _mean_over(strategy) if workers > 1 else None
        self._interval, self._batches, self._asked = 1, 0, time.monotonic()

    def any(self, *wishes: bool, now: bool = False) -> list[bool]:
        """Which of the wishes some worker has; between two questions none.

        Args:
            wishes: Of this worker.
            now: Ask in any case. As every call, at the same batch on all workers.
        """
        if self._mean is None:
            return list(wishes)
        self._batches += 1
        if self._batches < self._interval and not now:
            return [False] * len(wishes)
        own = [*map(float, wishes), time.monotonic() - self._asked]
        *shares, seconds = self._mean(tf.constant(own, tf.float64)).numpy().tolist()
        # All workers have the same mean, so they will ask again at the same batch.
        rate = self._batches / max(seconds, 1e-6)
        self._interval = max(1, min(2 * self._interval, int(_SECONDS * rate)))
        self._batches, self._asked = 0, time.monotonic()
        return [share > 0.0 for share in shares]

    def same(self, number: int) -> bool:
        """Whether all workers give the same number; if not, at least two of them are told so."""
        return self._mean is None or float(self._mean(tf.constant([number], tf.float64))[0]) == number


def _mean_over(strategy: tf.distribute.Strategy) -> Any:
    @tf.function
    def mean(own: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, strategy.run(lambda: own), axis=None)

    return mean


_DEFAULTS: dict[int, Any] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}


class Termination:
    """Notes SIGTERM, by which schedulers announce that a process will be killed soon, and Ctrl-C.

    A handler of the user's is left alone. After the first signal Python's handlers are back, so a second one
    acts at once. All that listen hear the signal: a `fit` inside of another, and the outer one.

    Attributes:
        asked: The signal that came; None before.
    """

    _listening: ClassVar[list["Termination"]] = []

    def __init__(self) -> None:
        self.asked: int | None = None
        self._is_over: Callable[[FrameType | None], bool] = lambda _: False

    def listen(self, is_over: Callable[[FrameType | None], bool]) -> None:
        """Begins to note the signals; only the main thread can.

        Args:
            is_over: Tells from the innermost frame of the main thread whether nobody listens any more. An
                exception that somebody keeps delays `forget`.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        self._is_over = is_over
        self._listening.append(self)
        for number, default in _DEFAULTS.items():
            if signal.getsignal(number) == default:
                signal.signal(number, _ask)

    def forget(self) -> None:
        """Ends that, and puts Python's handlers back if nobody else listens."""
        if self in self._listening:
            self._listening.remove(self)
        if not self._listening:
            _restore_handlers()

    def leave(self) -> NoReturn:
        """Ends the process, or the call in a notebook, as the signal that came would have."""
        if self.asked == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)


def _ask(number: int, frame: FrameType | None) -> None:
    """The handler of all that listen."""
    _restore_handlers()
    heard = [each for each in Termination._listening if not each._is_over(frame)]
    Termination._listening.clear()
    for each in heard:
        each.asked = number
    if not heard:
        signal.raise_signal(number)
    elif number == signal.SIGINT:
        _LOG.warning(
            "Resume: saves and stops at the next batch. Press Ctrl-C again to stop at once, unsaved."
        )


def _restore_handlers() -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # a collection of garbage in another thread: `_ask` restores when it finds nobody listening
    for number, default in _DEFAULTS.items():
        if signal.getsignal(number) is _ask:
            signal.signal(number, default)  # type: ignore[arg-type]


def worker_of(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Index of this worker and number of workers."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    resolver = strategy.cluster_resolver
    tasks = [(name, i) for name in ("chief", "worker") for i in range(_tasks(resolver, name))]
    return (tasks.index((resolver.task_type, resolver.task_id)), len(tasks)) if tasks else (0, 1)


def _tasks(resolver: Any, name: str) -> int:
    spec = resolver.cluster_spec()
    return spec.num_tasks(name) if name in spec.jobs else 0
