"""How well a file agrees with its model: output by output, channel by channel."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from tfopt.compress._matching import Port

# Signal-to-noise ratio against the Keras model, in decibels, that the file of a trained model reaches.
LEAST_SNR = {None: 60.0, "float16": 30.0, "dynamic": 10.0, "int8": 10.0, "int16x8": 10.0}
PROBABILITY_STEP = 1.0 / 256  # the scale that TFLite gives to softmax and sigmoid, whatever their values
_TINY = 1e-20
_NAMED = 4


@final
@dataclass(frozen=True)
class Agreement:
    """One output: the ratio over all of it, and the channels of its last axis that fall below the limit.

    `size` is below 1 for an output that never reaches 0.001, whose noise is small for that reason alone.
    """

    name: str
    decibels: float
    limit: float
    noise: float
    size: float
    channels: int
    lost: tuple[int, ...]
    lost_decibels: float
    distinct: int
    ranges: tuple[float, float]

    @property
    def is_good(self) -> bool:
        """Whether the whole output and each of its channels reach the limit."""
        return not self.lost and (self.decibels >= self.limit or self.noise < 1e-9 * self.size)

    def sentence(self) -> str:
        """What is wrong, with numbers."""
        where = f"output {self.name!r}"
        if not self.lost or self.channels == 1:
            return f"{where} agrees with the model only to {self.decibels:.1f} dB"
        named = ", ".join(map(str, self.lost[:_NAMED])) + (", ..." if len(self.lost) > _NAMED else "")
        return (
            f"{where} agrees with the model to {self.decibels:.1f} dB, but {len(self.lost)} of its "
            f"{self.channels} channels (last axis) do not: channel {named}, the worst at "
            f"{self.lost_decibels:.1f} dB with {self.distinct} distinct values"
        )

    @property
    def shares_a_scale(self) -> bool:
        """Whether the lost channels are small beside another channel of the same output."""
        small, large = self.ranges
        return bool(self.lost) and large > 8.0 * small


def agreements(
    ports: Sequence[Port],
    expected: Sequence[np.ndarray],
    received: Sequence[np.ndarray],
    quantization: str | None,
    steps: Sequence[float],
) -> list[Agreement]:
    """Compares each output of a file with that of the model, for the same samples.

    Args:
        ports: The outputs.
        expected: What the model gives.
        received: What the file gives, in float.
        quantization: As in `export`; it decides the limit.
        steps: The scale of each output in the file, 0 if it is float.
    """
    limit = LEAST_SNR[quantization]
    return [
        _agreement(port, want.astype(np.float64), got.astype(np.float64), limit, step, quantization)
        for port, want, got, step in zip(ports, expected, received, steps)
    ]


def decibels(expected: np.ndarray, received: np.ndarray) -> float:
    """Signal-to-noise ratio, the signal being what varies in `expected`."""
    noise = max(float(np.mean(np.square(expected - received))), _TINY)
    return 10.0 * math.log10(max(float(np.var(expected)), _TINY) / noise)


def _agreement(
    port: Port, want: np.ndarray, got: np.ndarray, limit: float, step: float, quantization: str | None
) -> Agreement:
    rows, seen = (x.reshape(-1, x.shape[-1] if x.ndim > 1 else 1) for x in (want, got))
    noise, signal = np.mean(np.square(rows - seen), axis=0), np.var(rows, axis=0)
    typical = np.abs(rows.mean(axis=0))
    # A probability is judged by the step that TFLite gives it, a channel that hardly varies by its level.
    excused = 1.5 * step if math.isclose(step, PROBABILITY_STEP, rel_tol=1e-3) else 0.0
    shares = _are_shares(rows)
    if shares:
        # All classes have one unit, and one that none of these few samples shows hardly varies: noise counts
        # against the classes that they do show.
        signal = np.maximum(signal, np.square(signal).sum() / max(float(signal.sum()), _TINY))
    constant = signal < np.square(1e-3 * typical) + _TINY
    signal = np.where(constant, np.square(0.1 * typical), signal)
    size = min(1.0, float(np.square(np.abs(rows).max(initial=0.0) / 1e-3)))
    allowed = np.maximum(np.square(np.maximum(excused, 1e-5 * typical)), 1e-12 * size)
    ratios = 10.0 * np.log10(np.maximum(signal, _TINY) / np.maximum(noise, _TINY))
    # Float files lose no channel by a shared scale: small channels only carry the rounding of float32.
    judged = (noise > allowed) & (ratios < limit) & (quantization is not None)
    lost = np.flatnonzero(judged)
    worst = int(lost[np.argmin(ratios[lost])]) if len(lost) else 0
    widths = np.ptp(rows, axis=0) + np.where(constant, typical, 0.0)
    return Agreement(
        name=port.name,
        decibels=decibels(want, got),
        limit=limit,
        noise=float(np.mean(np.square(want - got))) if excused == 0 else _beyond(noise, excused),
        size=size,
        channels=rows.shape[1],
        lost=tuple(int(index) for index in lost),
        lost_decibels=float(ratios[worst]),
        distinct=len(np.unique(seen[:, worst])),
        ranges=_ranges(widths, lost) if not shares else (0.0, 0.0),
    )


def _ranges(widths: np.ndarray, lost: np.ndarray) -> tuple[float, float]:
    """The range of the smallest channel that is lost, and of the largest that is not."""
    kept: np.ndarray = np.delete(widths, lost)
    return float(widths[lost].min()) if len(lost) else 0.0, float(kept.max()) if len(kept) else 0.0


def _are_shares(rows: np.ndarray) -> bool:
    """Whether the channels are probabilities of classes: together 1."""
    return rows.shape[1] > 1 and bool(np.allclose(rows.sum(axis=1), 1.0, atol=1e-3))


def _beyond(noise: np.ndarray, excused: float) -> float:
    """Noise of an output of probabilities, 0 if it stays within the step that TFLite gives them."""
    mean = float(np.mean(noise))
    return 0.0 if mean <= excused**2 else mean
