"""`Workers`: what the processes that run one job tell each other, besides the gradients of `fit`."""

import contextlib
import hashlib
from collections.abc import Callable
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from tfopt.distribute.description import describe
from tfopt.distribute.sharding import over_workers

_CHUNK = 1 << 20  # numbers of 8 bytes that are sent at once
_WORKED, _FAILED = b"1", b"0"


class ChiefFailedError(RuntimeError):
    """Ends a worker because the chief has failed, which says why."""


class WorkerFailedError(RuntimeError):
    """Ends the chief because another worker has failed, with that worker's message."""


@final
class Workers:
    """All processes of a job, of which the first one, the chief, writes files and tells how it goes.

    Every method but the properties has to be called by all workers, in the same order. With one worker
    nothing is sent.

    Args:
        strategy: What they train under.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        described = describe(strategy)
        self._strategy, self.count, self.index = strategy, described.workers, described.worker
        self._sum = _sum_of_first(strategy) if self.count > 1 else None

    @property
    def is_chief(self) -> bool:
        """Whether this process writes and tells."""
        return self.index == 0

    def from_chief(self, content: bytes = b"") -> bytes:
        """What the chief gives; the others give nothing."""
        if self.count == 1:
            return content
        size = int(self._of_chief(np.array([len(content)], np.int64))[0])
        numbers = -(-size // 8)
        own: np.ndarray = np.zeros(numbers, np.int64)
        if self.is_chief:
            own = np.frombuffer(content.ljust(8 * numbers, b"\0"), np.int64)
        parts = [self._of_chief(own[start : start + _CHUNK]) for start in range(0, numbers, _CHUNK)]
        return b"".join(part.tobytes() for part in parts)[:size]

    def alone(self, work: Callable[[], str]) -> str:
        """What the chief's work gives, while the others wait.

        Raises:
            ChiefFailedError: On the others, if the work fails.
        """
        if self.count == 1:
            return work()
        if self.is_chief:
            try:
                text = work()
            except BaseException:
                with contextlib.suppress(tf.errors.OpError):  # the others may be gone: that error counts less
                    self.from_chief(_FAILED)
                raise
            self.from_chief(_WORKED + text.encode())
            return text
        answer = self.from_chief()
        if not answer.startswith(_WORKED):
            raise ChiefFailedError("The chief (worker 0) has failed. Its own message says why.")
        return answer.removeprefix(_WORKED).decode()

    def gathered(self, content: bytes) -> list[bytes]:
        """What every worker gives, in their order; the same list on all of them."""
        if self.count == 1:
            return [content]
        sizes = over_workers(self._strategy, tf.constant([len(content)], tf.int64)).tolist()
        numbers = np.frombuffer(content.ljust(-(-len(content) // 8) * 8, b"\0"), np.int64)
        lengths = [-(-size // 8) for size in sizes]
        found: list[list[bytes]] = [[] for _ in sizes]
        for start in range(0, max(lengths), _CHUNK):
            rows = over_workers(self._strategy, tf.constant(numbers[start : start + _CHUNK], tf.int64))
            counts = [min(max(length - start, 0), _CHUNK) for length in lengths]
            for parts, part in zip(found, np.split(rows, np.cumsum(counts)[:-1])):
                parts.append(part.tobytes())
        return [b"".join(parts)[:size] for parts, size in zip(found, sizes)]

    def shares(self, work: Callable[[], bytes]) -> list[bytes]:
        """What the work of every worker gives, in their order; the same list on all of them.

        Raises:
            WorkerFailedError: On the chief, if the work of another worker fails.
            ChiefFailedError: On the others, if they have not failed themselves: the chief tells why.
        """
        if self.count == 1:
            return [work()]
        failure: Exception | None = None
        try:
            own = _WORKED + work()
        except Exception as error:
            failure, own = error, _FAILED + str(error).encode(errors="backslashreplace")
        answers = self.gathered(own)
        if failure is not None:
            raise failure
        for index, answer in enumerate(answers):
            if not answer.startswith(_WORKED):
                if not self.is_chief:
                    raise ChiefFailedError("Another worker has failed. The chief (worker 0) says why.")
                reason = answer.removeprefix(_FAILED).decode()
                raise WorkerFailedError(f"Worker {index} has failed: {reason}")
        return [answer.removeprefix(_WORKED) for answer in answers]

    def all(self, is_true: bool) -> bool:
        """Whether something is true on every worker."""
        if self.count == 1:
            return is_true
        return bool(over_workers(self._strategy, tf.constant([int(is_true)], tf.int64)).all())

    def check_same(self, what: str, content: str) -> None:
        """Refuses to go on if workers differ in something on which all must agree.

        Raises:
            ValueError: On every worker, naming those that differ from the chief.
        """
        if self.count == 1:
            return
        own = np.frombuffer(hashlib.sha256(content.encode()).digest(), np.int64)
        digests = over_workers(self._strategy, tf.constant(own[np.newaxis]))
        others = [str(index) for index, digest in enumerate(digests) if (digest != digests[0]).any()]
        if others:
            raise ValueError(
                f"All workers must have the same {what}. Those of worker {', '.join(others)} differ from the "
                "chief's (worker 0): give every worker the same files, options and versions."
            )

    def synchronize(self, model: keras.Model) -> None:
        """Gives a model the chief's weights, which others computed alike but for rounding."""
        if self.count == 1:
            return
        weights = [np.asarray(weight) for weight in model.get_weights()]
        sent = self.from_chief(b"".join(weight.tobytes() for weight in weights) if self.is_chief else b"")
        values, start = [], 0
        for weight in weights:
            part = np.frombuffer(sent[start : start + weight.nbytes], weight.dtype)
            values.append(part.reshape(weight.shape))
            start += weight.nbytes
        model.set_weights(values)

    def _of_chief(self, numbers: np.ndarray) -> np.ndarray:
        """The chief's numbers, of which the others give as many."""
        return self._sum(tf.constant(numbers, tf.int64)).numpy()


def _sum_of_first(strategy: tf.distribute.Strategy) -> Any:
    """Adds up what the first replica has and zeros of all others."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64)])  # one trace for all sizes
    def total(own: tf.Tensor) -> tf.Tensor:
        def once() -> tf.Tensor:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return own if replica == 0 else tf.zeros_like(own)

        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(once), axis=None)

    return total
