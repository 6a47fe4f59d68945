"""What a search may choose from: a name, and either a list of values or a range, for each setting."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from tfopt._checks import check_instance, check_number, message
from tfopt._optional import require

Space = Mapping[str, "Range | Sequence[Any]"]


@final
@dataclass(frozen=True)
class Range:
    """All numbers between two bounds, both included.

    Args:
        low: Lower bound; above 0 if `log`.
        high: Upper bound, > `low`. If both bounds are integers, so are the values.
        log: Draw the logarithm uniformly: for rates, decays and anything that spans decades.

    Example:
        >>> space = {"learning_rate": Range(1e-4, 1e-2, log=True), "batch_size": [16, 32, 64]}
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        check_number("low", self.low, minimum=0 if self.log else float("-inf"), open_minimum=self.log)
        check_number("high", self.high, minimum=self.low, open_minimum=True)

    @property
    def integer(self) -> bool:
        """Whether the values are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


def check_space(space: Any) -> dict[str, Range | list[Any]]:
    """The space with its lists copied, or an error that names the setting at fault."""
    check_instance("space", space, Mapping)
    if not space:
        fix = "Give at least one setting, such as {'learning_rate': Range(1e-4, 1e-2, log=True)}."
        raise ValueError(message("space", "a non-empty mapping", space, fix))
    checked: dict[str, Range | list[Any]] = {}
    for name, domain in space.items():
        if isinstance(domain, Range):
            checked[name] = domain
        elif isinstance(domain, Sequence) and not isinstance(domain, str) and len(domain):
            checked[name] = list(domain)
        else:
            raise ValueError(message(f"space[{name!r}]", "a `Range` or a non-empty list of values", domain))
    return checked


def read_space(path: str | pathlib.Path) -> Space:
    """A space from a JSON file: setting -> list of values, or `{"low": ..., "high": ..., "log": true}`.

    Raises:
        ValueError: If the file is no JSON object, or a range has other keys.
    """
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        entries = {name: Range(**v) if isinstance(v, dict) else v for name, v in found.items()}
    except (json.JSONDecodeError, AttributeError, TypeError) as error:
        expected = (
            'a JSON file such as {"batch_size": [16, 32], "learning_rate": {"low": 1e-4, "high": 1e-2}}'
        )
        raise ValueError(message("space", expected, str(path), f"({error})")) from error
    return check_space(entries)


def describe(space: Mapping[str, Range | list[Any]]) -> dict[str, Any]:
    """The space as plain values, to tell on resuming whether it is still the same."""
    return {
        name: {"low": domain.low, "high": domain.high, "log": domain.log}
        if isinstance(domain, Range)
        else list(domain)
        for name, domain in space.items()
    }


def hyperparameters(space: Mapping[str, Range | list[Any]], start: Mapping[str, Any] | None = None) -> Any:
    """The space for keras-tuner. A list becomes its indices: a keras-tuner choice can hold no None.

    Args:
        space: Result of `check_space`.
        start: The point of it that becomes the default; None leaves that to keras-tuner.
    """
    drawn = require("keras_tuner", "`tfopt.tune.search`").HyperParameters()
    for name, domain in space.items():
        default = None if start is None else start[name]
        if not isinstance(domain, Range):
            ordered = all(isinstance(value, int | float) for value in domain)
            index = 0 if start is None else domain.index(default)
            drawn.Choice(name, list(range(len(domain))), default=index, ordered=ordered)
            continue
        make = drawn.Int if domain.integer else drawn.Float
        make(name, domain.low, domain.high, sampling="log" if domain.log else "linear", default=default)
    return drawn


def values_of(space: Mapping[str, Range | list[Any]], drawn: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that keras-tuner drew, as the user wrote them."""
    return {
        name: drawn[name] if isinstance(domain, Range) else domain[drawn[name]]
        for name, domain in space.items()
    }
