"""What workers decide together between two batches: to save, or to stop because one was asked to."""

import signal
import threading
import time
from types import FrameType
from typing import Any

import tensorflow as tf

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


class Termination:
    """Notes SIGTERM, by which schedulers announce that a process will be killed soon.

    A handler of the user's is left alone. A second SIGTERM ends the process as usual.

    Attributes:
        asked: Whether the signal came.
    """

    CODE = 128 + signal.SIGTERM

    def __init__(self) -> None:
        self.asked = False
        self._listens = False

    def listen(self) -> None:
        """Begins to note the signal; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._ask)
            self._listens = True

    def forget(self) -> None:
        """Ends that."""
        if self._listens:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._listens = False

    def _ask(self, number: int, frame: FrameType | None) -> Any:
        self.asked = True
        self.forget()


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
