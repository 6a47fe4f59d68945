"""What a linear head learns from: features, labels, weights; in memory while they are few, else on disk."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Self, final

import numpy as np

IN_MEMORY = 2**25  # bytes of features that stay in memory
BLOCK = 2**21  # numbers of the widest array of a block: each of its float32 arrays has at most 8 MB


class Block(NamedTuple):
    """Some examples, as float32.

    Attributes:
        features: [examples, features].
        labels: [examples, outputs], encoded.
        weights: [examples, 1], of the examples, or 1.
    """

    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | float = 1.0

    def with_more(self, *others: "Block") -> "Block":
        """These examples and others."""
        if not others:
            return self
        parts = (self, *others)
        weights = [np.broadcast_to(np.float32(part.weights), (len(part.labels), 1)) for part in parts]
        features, labels = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
        return Block(features, labels, np.concatenate(weights))


@final
class Spool:
    """Keeps blocks: the first in memory, features of the others as float16 in a temporary file.

    The file has no name, so that it goes with the process, whatever ends it. One-hot labels are kept as the
    numbers of their classes: with a thousand classes the rows would be larger than the features.

    Args:
        in_memory: Bytes of features that stay in memory.
    """

    def __init__(self, in_memory: int | None = None) -> None:
        self.left = IN_MEMORY if in_memory is None else in_memory
        self._file: Any = None

    def keep(self, block: Block) -> Callable[[], Block]:
        """Keeps a block; returns what gives it back."""
        labels = _few_bytes(block.labels)
        weights = block.weights
        if block.features.nbytes <= self.left:
            self.left -= block.features.nbytes
            features = block.features
            return lambda: Block(features, labels(), weights)
        read, labels = self._written(block.features), self._spilled(block.labels, labels)
        return lambda: Block(read(), labels(), weights)

    def _spilled(self, rows: np.ndarray, labels: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
        """Labels in the file, too, unless they are numbers of classes or as small as such."""
        return labels if rows.shape[1] == 1 or _is_one_hot(rows) else self._written(rows)

    def _written(self, rows: np.ndarray) -> Callable[[], np.ndarray]:
        """Rows as float16 times a power of two for each, which is exact and keeps all magnitudes."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="tfopt-features-")  # noqa: SIM115 - open for long
        largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
        _, exponents = np.frexp(np.where(np.isfinite(largest), largest, 1.0))
        start, shape = self._file.seek(0, os.SEEK_END), rows.shape
        try:
            self._file.write(np.ldexp(rows, -exponents).astype(np.float16).tobytes())
            self._file.flush()
        except OSError as error:
            folder = tempfile.gettempdir()
            fix = "Make room, or set TMPDIR to a folder on a larger disk."
            size = f"{rows.size * 2 / 1e6:,.1f} MB more of features"
            reason = f"{size} do not fit into {folder!r}: {error.strerror}. {fix}"
            raise OSError(error.errno, reason) from error
        file = self._file

        def read() -> np.ndarray:
            file.seek(start)
            found = np.frombuffer(file.read(2 * shape[0] * shape[1]), np.float16).reshape(shape)
            return np.ldexp(found.astype(np.float32), exponents)

        return read


@final
class Examples:
    """Blocks of examples, which are read one after the other; few examples are one block.

    Args:
        kept: What gives the blocks back.
    """

    def __init__(self, kept: Iterable[Callable[[], Block]]) -> None:
        self._kept = list(kept)

    @classmethod
    def of(cls, batches: Iterable[Block], spool: Spool | None = None) -> Self:
        """Gathers batches to blocks, and keeps those.

        Args:
            batches: In their order, not empty.
            spool: Where; several `Examples` share one and its memory. None is one of its own.
        """
        spool = spool or Spool()
        kept: list[Callable[[], Block]] = []
        parts: list[Block] = []
        rows = 0
        for part in batches:
            most = rows_of_block(part)
            if parts and rows + len(part.features) > most:
                kept.append(spool.keep(parts[0].with_more(*parts[1:])))
                parts, rows = [], 0
            parts.append(part)
            rows += len(part.features)
        kept.append(spool.keep(parts[0].with_more(*parts[1:])))
        return cls(kept)

    def __iter__(self) -> Iterator[Block]:
        """The blocks, from memory or from the disk."""
        return (read() for read in self._kept)

    def with_more(self, *others: "Examples") -> "Examples":
        """These examples and others; one block if they are few."""
        every = [read for examples in (self, *others) for read in examples._kept]
        firsts = [read() for read in every[: len(others) + 2]]
        if len(firsts) == len(every) and sum(len(x.features) for x in firsts) <= rows_of_block(firsts[0]):
            whole = firsts[0].with_more(*firsts[1:])
            return Examples([lambda: whole])
        return Examples(every)

    def spreads(self) -> tuple[np.ndarray, np.ndarray, float]:
        """(mean of each feature, its standard deviation, that of all numbers); not finite if one is not."""
        if len(self._kept) == 1:
            features = self._kept[0]().features
            return features.mean(axis=0), features.std(axis=0), float(features.std())
        count = sum(len(block.features) for block in self)
        mean = sum(block.features.sum(axis=0, dtype=np.float64) for block in self) / count
        total, squares = float(np.mean(mean)), np.zeros_like(mean)
        for block in self:
            squares += np.square(block.features - mean).sum(axis=0)
        variance = squares / count
        spread = np.sqrt(np.mean(variance + np.square(mean - total)))
        return mean.astype(np.float32), np.sqrt(variance).astype(np.float32), float(spread)


def rows_of_block(block: Block) -> int:
    """The most examples of a block like this."""
    return max(1, BLOCK // max(block.features.shape[1], block.labels.shape[1]))


def _is_one_hot(labels: np.ndarray) -> bool:
    return bool(labels.shape[1] > 1 and ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all())


def _few_bytes(labels: np.ndarray) -> Callable[[], np.ndarray]:
    """Gives labels back, which are kept as numbers of classes if they are one-hot."""
    if not _is_one_hot(labels):
        return lambda: labels
    numbers, classes, kind = labels.argmax(axis=1).astype(np.int32), labels.shape[1], labels.dtype
    return lambda: _rows(numbers, classes, kind)


def _rows(numbers: np.ndarray, classes: int, kind: Any) -> np.ndarray:
    found: np.ndarray = np.zeros((len(numbers), classes), kind)
    found[np.arange(len(numbers)), numbers] = 1
    return found
