"""Limits that a small model must keep."""

import re
from dataclasses import dataclass, fields
from typing import Any, final

from tfopt._checks import check_number, message

_UNITS = {"": 1, "b": 1, "k": 1e3, "kb": 1e3, "kib": 1024, "m": 1e6, "mb": 1e6, "mib": 1024**2}
_KNOWN = dict.fromkeys(
    ("bytes", "zipped", "arena"), "k, kB, KiB, M, MB and MiB, such as '250k', or none (bytes)"
)
_KNOWN |= {
    "latency_ms": "us, ms and s, such as '5ms', or none (ms)",
    "drop": "%, such as '1%', or none (0.01)",
}
SIZES = ("bytes", "zipped", "arena")


@final
@dataclass(frozen=True)
class Budget:
    """What the file may cost at most; None is no limit.

    Args:
        bytes: Size of the file: a number, or a text such as "250k" or "0.5 MiB" (k is 1000, KiB 1024).
        zipped: Size of the file compressed by zlib at level 6, as a download is.
        latency_ms: Median time of one inference on this machine, in milliseconds, or a text such as "5ms".
        arena: Memory of activations at their peak, in bytes: an estimate from the lifetimes of the file's
            tensors, without the memory that the interpreter itself needs.
        drop: Loss against the float model in accuracy, in [0, 1), or a text such as "1%".

    Raises:
        ValueError: If no limit is given, a limit is not above 0, or `zipped` can never bind beside `bytes`.

    Example:
        >>> tfopt.compress.Budget(bytes="250k", drop="1%").bytes
        250000.0
    """

    bytes: Any = None
    zipped: Any = None
    latency_ms: Any = None
    arena: Any = None
    drop: Any = None

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None:
                object.__setattr__(self, each.name, _parsed(each.name, value))
        if not self.limits():
            raise ValueError(f"`Budget` must have a limit: one of {[each.name for each in fields(self)]}.")

    def limits(self) -> dict[str, float]:
        """The limits that are given, by name."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in given.items() if value is not None}

    def exceeded(self, measured: Any) -> dict[str, tuple[float, float]]:
        """Limits that a `Measurement` does not keep: (limit, measured) by name."""
        costs = {name: getattr(measured, name) for name in self.limits() if name != "drop"}
        return {
            name: (limit, costs[name]) for name, limit in self.limits().items() if costs.get(name, 0) > limit
        }

    def missed(self, measured: Any, float_score: float) -> dict[str, tuple[float, float]]:
        """`exceeded`, and `drop` if the score fell by more against that of the float model."""
        found, drop = self.exceeded(measured), float_score - measured.score
        return found | ({"drop": (self.drop, drop)} if self.drop is not None and drop > self.drop else {})


def _parsed(name: str, value: Any) -> float:
    if isinstance(value, str):
        match = re.fullmatch(r"\s*((?:\d+\.?\d*|\.\d+)(?:e-?\d+)?)\s*([a-zA-Z%]*)\s*", value, re.ASCII)
        units = _UNITS if name in SIZES else {"": 1, "ms": 1, "s": 1e3, "us": 1e-3}
        units = {"": 1, "%": 0.01} if name == "drop" else units
        if match is None or match[2].lower() not in units:
            raise ValueError(message(name, f"a number with one of the units {_KNOWN[name]}", value))
        value = float(match[1]) * units[match[2].lower()]
    if name == "drop":
        fix = "0.01 or '1%' is one point of accuracy."
        return check_number(name, value, minimum=0.0, maximum=1.0, open_maximum=True, fix=fix)
    return check_number(name, value, minimum=0.0, open_minimum=True)
