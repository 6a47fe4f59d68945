"""Images at the size of a model, with their labels, batch by batch; several workers read a part each."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, final

import numpy as np

from tfopt._surroundings import visible_cpus
from tfopt.data.decode import resize, three_channels
from tfopt.data.random_access import EncodedImages, RandomAccess

_BATCH = 32


@final
class LabeledBatches:
    """All batches of some splits, numbered through.

    Args:
        splits: `RandomAccess`, or datasets where TensorFlow has to read them.
        image_size: Height and width to which images are resized.
    """

    def __init__(self, splits: Sequence[Any], image_size: tuple[int, int]) -> None:
        self._size = image_size
        self._parts = [self._opened(split) for split in splits]

    def _opened(self, split: Any) -> tuple[Any, int]:
        """A split that can be read at the size, and its number of batches."""
        if isinstance(split, RandomAccess):
            sized = split.sized(self._size, False) if isinstance(split, EncodedImages) else split
            return sized, -(-len(split) // _BATCH)
        from tfopt.data import pipeline

        batches = pipeline(split, _BATCH, image_size=self._size, shuffle=False)
        return batches, int(batches.cardinality())

    def part(self, worker: int, workers: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The images and labels of one of several workers: neighboring batches, as many as of the others."""
        total = sum(count for _, count in self._parts)
        first, last = (total * number // workers for number in (worker, worker + 1))
        for source, count in self._parts:
            start, end = max(first, 0), min(last, count)
            if start < end:
                yield from self._read(source, start, end)
            first, last = first - count, last - count

    def described(self) -> str:
        """Number of batches and a hash of the labels of each split, by which workers compare their data."""
        labels = [getattr(source, "labels", None) for source, _ in self._parts]
        hashes = [None if each is None else hashlib.sha256(each.tobytes()).hexdigest() for each in labels]
        return json.dumps([[count for _, count in self._parts], hashes])

    def _read(self, source: Any, start: int, end: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches from `start` to before `end` of one split."""
        if not isinstance(source, RandomAccess):
            for images, labels, *_ in source.skip(start).take(end - start):
                yield images.numpy(), labels.numpy()
            return

        def read(place: int) -> np.ndarray:
            return resize(three_channels(source.array(place)), self._size)

        with ThreadPoolExecutor(visible_cpus()) as pool:
            for first in range(start * _BATCH, min(end * _BATCH, len(source)), _BATCH):
                numbers = range(first, min(first + _BATCH, len(source)))
                yield np.stack(list(pool.map(read, numbers))), source.labels[first : numbers.stop]
