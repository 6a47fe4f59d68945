"""Batch sizes that grow: in equal increments, or by a factor."""

from typing import Any

import keras

from tfopt._checks import check_integer, message
from tfopt.schedules.batch_size import BatchSizeSchedule


@keras.saving.register_keras_serializable(package="tfopt")
class LinearRamp(BatchSizeSchedule):
    """Grows from one size to another in equal increments of equal length.

    Use it for a smooth warm-up of the batch size; with XLA each size compiles once, so keep the number
    of increments, (end - start) / round_to, small.

    Args:
        start: First size, >= 1, a multiple of `round_to`.
        end: Size from `ramp_samples` on, >= `start`, a multiple of `round_to`.
        ramp_samples: Samples over which it grows, >= 1.
        round_to: The increment; the number of replicas, or Megatron's second number.

    Example:
        >>> ramp = tfopt.schedules.LinearRamp(32, 128, ramp_samples=50_000, round_to=32)
        >>> ramp(0), ramp(20_000), ramp(60_000), ramp.total_steps(100_000)
        (32, 64, 128, 1346)

    References:
        Megatron-LM's `--rampup-batch-size start increment samples`: the same sizes.
    """

    def __init__(self, start: int, end: int, ramp_samples: int, round_to: int = 1) -> None:
        self.round_to = check_integer("round_to", round_to, minimum=1)
        self.start = check_integer("start", start, minimum=1)
        self.end = check_integer("end", end, minimum=self.start)
        self.ramp_samples = check_integer("ramp_samples", ramp_samples, minimum=1)
        for name, size in (("start", self.start), ("end", self.end)):
            if size % self.round_to:
                raise ValueError(message(name, f"a multiple of round_to={self.round_to}", size))
        count = (self.end - self.start) // self.round_to
        super().__init__(
            [
                (-(-index * self.ramp_samples // max(count, 1)), self.start + index * self.round_to)
                for index in range(count + 1)
            ]
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in ("start", "end", "ramp_samples", "round_to")}


@keras.saving.register_keras_serializable(package="tfopt")
class GeometricRamp(BatchSizeSchedule):
    """Multiplies the size by a factor at equal distances; the usual choice: few sizes, large savings.

    Args:
        start: First size, >= 1.
        end: Size from `ramp_samples` on; `start` times a whole power of `factor`.
        ramp_samples: Samples over which it grows, >= 1.
        factor: Growth per phase, an integer >= 2.

    Example:
        >>> ramp = tfopt.schedules.GeometricRamp(16, 128, ramp_samples=3000)
        >>> ramp.sizes.tolist(), ramp.total_steps(6000)
        ([16, 32, 64, 128], 134)

    References:
        Devarakonda et al., "AdaBatch", 2017, arXiv:1712.02029.
    """

    def __init__(self, start: int, end: int, ramp_samples: int, factor: int = 2) -> None:
        self.start = check_integer("start", start, minimum=1)
        self.factor = check_integer("factor", factor, minimum=2)
        self.end = check_integer("end", end, minimum=self.start)
        self.ramp_samples = check_integer("ramp_samples", ramp_samples, minimum=1)
        sizes = [self.start]
        while sizes[-1] < self.end:
            sizes.append(sizes[-1] * self.factor)
        if sizes[-1] != self.end:
            raise ValueError(message("end", f"{self.start} times a whole power of {self.factor}", end))
        count = max(len(sizes) - 1, 1)
        super().__init__([(-(-i * self.ramp_samples // count), size) for i, size in enumerate(sizes)])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {name: getattr(self, name) for name in ("start", "end", "ramp_samples", "factor")}
