"""How the report writes figures: units, digits and ranges, the same everywhere."""

import math
from collections.abc import Iterable, Sequence

MISSING = "–"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage, with a thin space before the sign."""
    return MISSING if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}\u202f%"


def percent_range(interval: tuple[float, float] | None) -> str:
    """Both ends of an interval of fractions: 93.6–98.3 %."""
    return MISSING if interval is None else f"{100 * interval[0]:.1f}\u2060–\u2060{percent(interval[1])}"


def bytes_text(count: float | None) -> str:
    """A file size in decimal units, three significant digits at most."""
    if count is None:
        return MISSING
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{significant(count)}\u202f{unit}"
        count /= 1000
    return f"{significant(count)}\u202fGB"


def seconds_text(seconds: float | None) -> str:
    """A duration, as 9.3 s, 74 s or 1 h 12 min."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 100:
        return f"{significant(seconds, 2)}\u202fs"
    minutes = round(seconds / 60)
    return (
        f"{minutes // 60}\u202fh {minutes % 60}\u202fmin" if minutes >= 60 else f"{seconds / 60:.1f}\u202fmin"
    )


def milliseconds(value: float | None) -> str:
    """A latency."""
    return MISSING if value is None else f"{significant(value, 2)}\u202fms"


def significant(value: float, digits: int = 3) -> str:
    """A number with that many significant digits and no exponent where that stays short."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    magnitude = math.floor(math.log10(abs(value)))
    if -4 < magnitude < 7:
        return f"{round(value, digits - 1 - magnitude):,.{max(0, digits - 1 - magnitude)}f}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}·10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten) between two bounds, about `count` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten between two positive bounds; the bounds themselves if there are fewer than two."""
    powers = [10.0**k for k in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    return powers if len(powers) >= 2 else [low, high]


def tick_texts(marks: Sequence[float], share: bool = False) -> list[str]:
    """Axis labels without needless digits; very small or large powers of ten with an exponent."""
    if share:
        return [f"{100 * mark:g}\u202f%" for mark in marks]
    powers = [math.log10(mark) if mark > 0 else 0.0 for mark in marks]
    if all(power == round(power) for power in powers) and (min(powers) < -3 or max(powers) > 5):
        return ["10" + str(round(power)).translate(_SUPERSCRIPT) for power in powers]
    return [f"{mark:,.6g}" for mark in marks]


def finite(values: Iterable[float]) -> list[float]:
    """The values that can be drawn."""
    return [value for value in values if math.isfinite(value)]
