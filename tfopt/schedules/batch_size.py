"""Batch-size schedules: what size the next batch has, as a pure function of the samples seen so far.

A schedule is a list of phases. A phase closes on a whole batch: a boundary that falls inside a batch
takes effect with the next one. So the size of a batch, the number of updates and the samples seen after
an update are closed forms of each other, equal in the data pipeline, the optimizer and the callbacks.
"""

import abc
import numbers
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt._checks import check_instance, check_integer, message


class BatchSizeSchedule(abc.ABC):
    """Phases of constant batch size.

    Args:
        phases: `(first sample, size)` of every phase as asked for, the first one at sample 0.

    Attributes:
        sizes: int64 array, the batch size of each phase.
        first_samples: int64 array, samples seen when the phase begins (moved up to a whole batch).
        first_steps: int64 array, updates made when the phase begins.
    """

    def __init__(self, phases: list[tuple[int, int]]) -> None:
        samples, step = 0, 0
        kept: list[tuple[int, int, int]] = []
        for (_, size), (end, _) in zip(phases, phases[1:] + [(None, 0)]):
            if end is not None and end <= samples:  # a batch of the phase before reaches beyond this one
                continue
            kept.append((samples, step, size))
            batches = -(-((end or samples) - samples) // size)
            samples, step = samples + batches * size, step + batches
        self.first_samples, self.first_steps, self.sizes = np.array(kept, np.int64).T

    @property
    def boundaries(self) -> np.ndarray:
        """Samples seen at each change of size, as `tf.searchsorted(..., side="right")` wants them."""
        return self.first_samples[1:]

    def __call__(self, samples: Any) -> Any:
        """Size of the batch that holds sample number `samples`; an int for an int, a tensor for a tensor."""
        return self._look_up(samples, self.first_samples)[-1]

    def samples_seen(self, step: Any) -> Any:
        """Samples seen after `step` updates (an int or a tensor)."""
        step, first_sample, first_step, size = self._look_up(step, self.first_steps)
        return first_sample + (step - first_step) * size

    def total_steps(self, samples: int) -> int:
        """Updates that `samples` samples make; a last batch that is not full counts as one."""
        check_integer("samples", samples, minimum=0)
        phase = int(np.searchsorted(self.first_samples, samples, side="right")) - 1
        rest = samples - int(self.first_samples[phase])
        return int(self.first_steps[phase]) + -(-rest // int(self.sizes[phase]))

    def check_sizes(self, *, samples: int | None = None, replicas: int = 1) -> "BatchSizeSchedule":
        """Refuses sizes above the number of samples, or that the replicas cannot share equally.

        Raises:
            ValueError: Naming the first size that does not fit.
        """
        for size in self.sizes.tolist():
            if samples is not None and size > samples:
                raise ValueError(message("batch_size", f"at most the dataset's {samples} samples", size))
            if size % replicas:
                fix = f"Use `.rounded_to({replicas})`."
                raise ValueError(message("batch_size", f"a multiple of the {replicas} replicas", size, fix))
        return self

    def rounded_to(self, multiple: int) -> "Steps":
        """The same phases with every size rounded down to a multiple (at least one multiple)."""
        check_integer("multiple", multiple, minimum=1)
        sizes = [max(size // multiple, 1) * multiple for size in self.sizes.tolist()]
        return Steps(dict(zip(self.first_samples.tolist(), sizes)))

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BatchSizeSchedule":
        """The inverse of `get_config`."""
        return cls(**config)

    def _look_up(self, position: Any, firsts: np.ndarray) -> Any:
        """The position, and the first sample, first step and size of its phase."""
        columns = (self.first_samples, self.first_steps, self.sizes)
        if isinstance(position, numbers.Number):
            check_integer("position", position, minimum=0)
            phase = int(np.searchsorted(firsts, position, side="right")) - 1
            return position, *(int(column[phase]) for column in columns)
        position = tf.cast(position, tf.int64)
        phases = tf.reduce_sum(tf.cast(tf.expand_dims(position, -1) >= firsts, tf.int64), -1) - 1
        return position, *(tf.gather(tf.constant(column), phases) for column in columns)


@keras.saving.register_keras_serializable(package="tfopt")
class Steps(BatchSizeSchedule):
    """Batch sizes that change at given numbers of samples, up or down.

    Args:
        sizes: `{samples seen: size}`; the first key is 0, sizes are >= 1. Keys may be strings of
            digits, as JSON makes them.

    Example:
        >>> schedule = tfopt.schedules.Steps({0: 32, 10_000: 64, 30_000: 256})
    """

    def __init__(self, sizes: Mapping[Any, int]) -> None:
        check_instance("sizes", sizes, Mapping)
        size_at = {
            int(samples) if isinstance(samples, str) and samples.isdigit() else samples: size
            for samples, size in sizes.items()
        }
        for samples, size in size_at.items():
            check_integer("samples seen", samples, minimum=0)
            check_integer(f"sizes[{samples}]", size, minimum=1)
        if 0 not in size_at:
            raise ValueError(message("sizes", "a mapping that says the size at 0 samples", sizes))
        self.size_at = dict(sorted(size_at.items()))
        super().__init__(list(self.size_at.items()))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"sizes": {str(key): size for key, size in self.size_at.items()}}


def as_batch_size_schedule(batch_size: Any) -> BatchSizeSchedule:
    """A schedule as it is; an integer as a schedule that never changes."""
    if isinstance(batch_size, BatchSizeSchedule):
        return batch_size
    return Steps({0: check_integer("batch_size", batch_size, minimum=1)})
