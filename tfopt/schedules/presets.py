"""Published ways to trade learning-rate decay for batch growth: a batch-size schedule and its rate.

Each function returns `(batch_sizes, learning_rate)`: the first for `tfopt.data.pipeline` or
`GradientAccumulation`, the second for `compile`.
"""

from collections.abc import Sequence

from tfopt._checks import check_integer, check_number, message
from tfopt.schedules.batch_size import BatchSizeSchedule, Steps
from tfopt.schedules.by_sample import BySample
from tfopt.schedules.ramps import GeometricRamp, LinearRamp
from tfopt.schedules.sequence import Sequence as RateSequence


def instead_of_decay(
    learning_rate: float,
    batch_size: int,
    boundaries: Sequence[int],
    *,
    factor: int = 5,
    maximum: int | None = None,
) -> tuple[BatchSizeSchedule, BySample]:
    """Grows the batch by `factor` wherever the rate would have been divided by it.

    The noise of SGD goes with learning_rate / batch_size, so both do the same to it; growing needs
    fewer updates. Once `maximum` is reached the rate is divided after all.

    Args:
        learning_rate: The first rate, > 0.
        batch_size: The first size, >= 1.
        boundaries: Samples seen at each step of the decay that is replaced, increasing.
        factor: What the rate would have been divided by, an integer >= 2.
        maximum: Largest size that fits or helps (a tenth of the dataset at most); None is no limit.

    Example:
        >>> sizes, rate = tfopt.schedules.instead_of_decay(0.1, 128, [60_000, 120_000], maximum=640)
        >>> sizes.sizes.tolist(), round(float(rate(10_000)), 4)
        ([128, 640], 0.02)

    References:
        Smith et al., "Don't Decay the Learning Rate, Increase the Batch Size", 2017, arXiv:1711.00489.
    """
    check_number("learning_rate", learning_rate, minimum=0.0, open_minimum=True)
    check_integer("batch_size", batch_size, minimum=1)
    check_integer("factor", factor, minimum=2)
    _check_increasing("boundaries", boundaries)
    sizes, cuts, size = {0: batch_size}, [], batch_size
    for boundary in boundaries:
        if maximum is None or size * factor <= maximum:
            size *= factor
            sizes[boundary] = size
        else:
            cuts.append(boundary)
    return _with_cuts(Steps(sizes), learning_rate, cuts, 1 / factor)


def adabatch(
    learning_rate: float,
    batch_size: int,
    boundaries: Sequence[int],
    *,
    decay: float = 0.75,
) -> tuple[BatchSizeSchedule, BySample]:
    """Doubles the batch at every boundary and decays the rate half as much as a fixed batch would need.

    Args:
        learning_rate: The first rate, > 0.
        batch_size: The first size, >= 1.
        boundaries: Samples seen at each doubling, increasing (the paper: every 20 epochs).
        decay: Factor of the rate at each boundary, in (0, 1]; 0.75 replaces 0.375 at a fixed size.

    Example:
        >>> sizes, rate = tfopt.schedules.adabatch(0.1, 128, [20 * 50_000, 40 * 50_000])

    References:
        Devarakonda et al., "AdaBatch", 2017, arXiv:1712.02029.
    """
    check_number("decay", decay, minimum=0.0, maximum=1.0, open_minimum=True)
    check_integer("batch_size", batch_size, minimum=1)
    check_number("learning_rate", learning_rate, minimum=0.0, open_minimum=True)
    _check_increasing("boundaries", boundaries)
    sizes = {0: batch_size} | {at: batch_size * 2 ** (i + 1) for i, at in enumerate(boundaries)}
    return _with_cuts(Steps(sizes), learning_rate, list(boundaries), decay)


def megatron(start: int, increment: int, ramp_samples: int, end: int) -> LinearRamp:
    """Megatron-LM's `--rampup-batch-size start increment ramp_samples` up to the global batch size `end`.

    Example:
        >>> tfopt.schedules.megatron(16, 16, 9000, 64).sizes.tolist()
        [16, 32, 48, 64]
    """
    return LinearRamp(start, end, ramp_samples, round_to=increment)


def doubling(start: int, end: int, samples: int, *, share: float = 0.5) -> GeometricRamp:
    """Doubles from `start` to `end` within the first `share` of the run's samples.

    Args:
        start: First size, >= 1.
        end: Last size, `start` times a power of two.
        samples: Samples of the whole run (dataset size x epochs), >= 1.
        share: Part of them spent below `end`, in (0, 1].

    Example:
        >>> tfopt.schedules.doubling(16, 128, samples=12_000).boundaries.tolist()
        [2000, 4016, 6000]
    """
    check_integer("samples", samples, minimum=1)
    check_number("share", share, minimum=0.0, maximum=1.0, open_minimum=True)
    return GeometricRamp(start, end, max(int(samples * share), 1))


def _with_cuts(
    sizes: Steps, learning_rate: float, cuts: list[int], factor: float
) -> tuple[BatchSizeSchedule, BySample]:
    lengths = [end - begin for begin, end in zip([0, *cuts], cuts)] + [None]
    rates = [learning_rate * factor**power for power in range(len(lengths))]
    return sizes, BySample(RateSequence(list(zip(rates, lengths))), sizes)


def _check_increasing(name: str, values: Sequence[int]) -> None:
    for value in values:
        check_integer(name, value, minimum=1)
    if list(values) != sorted(set(values)):
        raise ValueError(message(name, "increasing", list(values)))
