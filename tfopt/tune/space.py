"""What a search may choose from: a name, and either a list of values or a range, for each setting."""

import contextlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from tfopt._checks import check_instance, check_number, message
from tfopt._optional import require


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


@final
class When:
    """What a setting may be where another setting has one of some values; elsewhere it is None.

    Trials that differ in nothing but a setting that does not matter are not drawn twice. The other setting
    stands before this one in the space; it may itself depend on a third one.

    Args:
        domain: A `Range` or a list of values.
        **setting: The other setting by its name: a value, or a list of values, out of its list.

    Example:
        >>> space = {"optimizer": ["sgd", "adamw"], "momentum": When(Range(0.8, 0.99), optimizer="sgd")}
    """

    def __init__(self, domain: Range | Sequence[Any], **setting: Any) -> None:
        if len(setting) != 1:
            fix = "Let one `When` depend on another for more."
            raise TypeError(message("setting", "one other setting, such as optimizer='sgd'", setting, fix))
        self.domain = domain
        ((self.parent, values),) = setting.items()
        self.values = list(values) if isinstance(values, list | tuple) else [values]


Domain: TypeAlias = Range | When | list[Any]
Space: TypeAlias = Mapping[str, Range | When | Sequence[Any]]


def check_space(space: Any) -> dict[str, Domain]:
    """The space with its lists copied, or an error that names the setting at fault."""
    check_instance("space", space, Mapping)
    if not space:
        fix = "Give at least one setting, such as {'learning_rate': Range(1e-4, 1e-2, log=True)}."
        raise ValueError(message("space", "a non-empty mapping", space, fix))
    checked: dict[str, Domain] = {}
    for name, domain in space.items():
        if isinstance(domain, When):
            _check_parent(name, domain, checked)
            inner = _check_domain(name, domain.domain)
            checked[name] = When(inner, **{domain.parent: domain.values})
        else:
            checked[name] = _check_domain(name, domain)
    return checked


def _check_domain(name: str, domain: Any) -> Range | list[Any]:
    if isinstance(domain, Range):
        return domain
    if isinstance(domain, Sequence) and not isinstance(domain, str) and len(domain):
        return list(domain)
    raise ValueError(message(f"space[{name!r}]", "a `Range` or a non-empty list of values", domain))


def _check_parent(name: str, domain: When, before: Mapping[str, Domain]) -> None:
    """Refuses a condition on what is not chosen from a list before."""
    plain = {other: _plain(found) for other, found in before.items()}
    lists = {other: found for other, found in plain.items() if isinstance(found, list)}
    if domain.parent not in lists:
        expected = f"a condition on a setting with a list before it: {', '.join(lists) or 'there is none'}"
        raise ValueError(message(f"space[{name!r}]", expected, domain.parent))
    unknown = [value for value in domain.values if value not in lists[domain.parent]]
    if unknown or not domain.values:
        expected = f"a condition on values of `{domain.parent}`, {lists[domain.parent]}"
        raise ValueError(message(f"space[{name!r}]", expected, unknown))


def _plain(domain: Domain) -> Range | Sequence[Any]:
    return domain.domain if isinstance(domain, When) else domain


def read_space(path: str | pathlib.Path) -> Space:
    """A space from a JSON file: setting -> list of values, or `{"low": ..., "high": ..., "log": true}`.

    Raises:
        ValueError: If the file is no JSON object, or a range has other keys.
    """
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        entries = {name: Range(**v) if isinstance(v, dict) else v for name, v in found.items()}
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        expected = (
            'a JSON file such as {"batch_size": [16, 32], "learning_rate": {"low": 1e-4, "high": 1e-2}}'
        )
        raise ValueError(message("space", expected, str(path), f"({error})")) from error
    return check_space(entries)


def describe(space: Mapping[str, Domain]) -> dict[str, Any]:
    """The space as plain values, to tell on resuming whether it is still the same."""
    return {name: _describe(domain) for name, domain in space.items()}


def _describe(domain: Domain | Sequence[Any]) -> Any:
    if isinstance(domain, When):
        return {"when": {domain.parent: domain.values}, "domain": _describe(domain.domain)}
    if isinstance(domain, Range):
        return {"low": domain.low, "high": domain.high, "log": domain.log}
    return list(domain)


def hyperparameters(space: Mapping[str, Domain], start: Mapping[str, Any] | None = None) -> Any:
    """The space for keras-tuner. A list becomes its indices: a keras-tuner choice can hold no None.

    Args:
        space: Result of `check_space`.
        start: The point of it that becomes the default; None leaves that to keras-tuner.
    """
    drawn = require("keras_tuner", "`tfopt.tune.search`").HyperParameters()
    for name, conditional in space.items():
        domain = _plain(conditional)
        default = None if start is None else start[name]
        with contextlib.ExitStack() as scopes:
            for parent, places in _conditions(space, name):
                scopes.enter_context(drawn.conditional_scope(parent, places))
            if not isinstance(domain, Range):
                ordered = all(isinstance(value, int | float) for value in domain)
                index = 0 if start is None else list(domain).index(default)
                drawn.Choice(name, list(range(len(domain))), default=index, ordered=ordered)
                continue
            make = drawn.Int if domain.integer else drawn.Float
            make(name, domain.low, domain.high, sampling="log" if domain.log else "linear", default=default)
    return drawn


def _conditions(space: Mapping[str, Domain], name: str) -> list[tuple[str, list[int]]]:
    """The settings that one depends on, the outermost first, each with the places of values in its list."""
    domain = space[name]
    if not isinstance(domain, When):
        return []
    choices = list(_plain(space[domain.parent]))  # type: ignore[arg-type]
    places = [choices.index(value) for value in domain.values]
    return [*_conditions(space, domain.parent), (domain.parent, places)]


def values_of(space: Mapping[str, Domain], drawn: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that keras-tuner drew, as the user wrote them; None for those that do not matter."""
    values: dict[str, Any] = {}
    for name, conditional in space.items():
        domain = _plain(conditional)
        if any(drawn.get(parent) not in places for parent, places in _conditions(space, name)):
            values[name] = None
        else:
            values[name] = drawn[name] if isinstance(domain, Range) else domain[drawn[name]]
    return values
