"""Options as fields of a dataclass: each is told once, with its type, its bounds and its meaning.

The checks, the `Args:` section of the docstring and the flags of the command line are made from the fields.
Imports neither NumPy nor Keras, so that `tfopt COMMAND --help` answers at once.
"""

import dataclasses
import difflib
import importlib
import json
import numbers
import os
import pathlib
import textwrap
import types
import typing
from typing import Any, Literal, Self, TypeVar

from tfopt import _checks

_PATHS = ("FILE", "FOLDER", "NAME|FILE")  # metavars of options that name a place
_IN_PYTHON = {"collections.abc.Callable": "a function", list: "a list", dict: "a dict"}
GROUPS = ("data", "model", "training", "compression", "machine", "output")  # in the order of `--help`
_Config = TypeVar("_Config", bound=type)


def option(
    default: Any,
    group: str,
    text: str,
    *,
    auto: str = "",
    none: str = "",
    python: str = "",
    metavar: str = "",
    **bounds: Any,
) -> Any:
    """A dataclass field for an option.

    Args:
        default: Its value unless given.
        group: Where `--help` lists it, one of `GROUPS`.
        text: What it means, in sentences that hold in Python and on the command line.
        auto: What "auto" stands for.
        none: What None stands for.
        python: What else it may be in Python.
        metavar: How `--help` names the value; "" derives that from the type.
        **bounds: `minimum`, `maximum`, `open_minimum`, `open_maximum`, as in `_checks.check_number`.
    """
    words = {"text": text, "auto": auto, "none": none, "python": python, "metavar": metavar}
    return dataclasses.field(default=default, metadata={"group": group, "bounds": bounds, **words})


def same(config: type, name: str, default: Any = dataclasses.MISSING) -> Any:
    """The option of another dataclass, perhaps with another default."""
    field = next(field for field in dataclasses.fields(config) if field.name == name)
    value = field.default if default is dataclasses.MISSING else default
    return dataclasses.field(default=value, metadata=field.metadata)


def documented(config: _Config) -> _Config:
    """Class decorator: puts the section `Args:` in the place of "{options}" in the docstring."""
    lines = ["Args:"]
    for field in dataclasses.fields(config):
        text = f"{field.name}: {meaning(field)}"
        lines += textwrap.wrap(text, 106, initial_indent=" " * 8, subsequent_indent=" " * 12)
    if config.__doc__:  # gone under `python -OO`
        config.__doc__ = config.__doc__.replace("{options}", "\n".join(lines))
    return config


def meaning(field: dataclasses.Field, command_line: bool = False) -> str:
    """What an option means, in the words of Python or of the command line."""
    words = field.metadata
    parts = [words["text"]]
    if words["python"] and not command_line:
        parts.append(f"Or {words['python']}.")
    stands_for = {"auto": words["auto"], None: words["none"]}
    parts += [f"{_spelled(value, command_line)}: {text}." for value, text in stands_for.items() if text]
    parts.append(f"Default: {_spelled(field.default, command_line)}.")
    return " ".join(parts)


@dataclasses.dataclass(frozen=True)
class Options:
    """Base of a frozen dataclass whose fields are made by `option`: checks, and files of values.

    Raises:
        ValueError: If a value is out of its bounds, or not one of those that may be chosen.
        TypeError: If a value is of another type.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, os.PathLike):
                value = os.fspath(value)
            if isinstance(value, str) and value == "none" and None in alternatives(field.type):
                value = None  # the spelling of the command line
            if isinstance(value, str) and field.metadata["metavar"] in _PATHS:
                value = os.path.expanduser(value)  # a shell expands ~ only at the beginning of a word
            object.__setattr__(self, field.name, value)  # frozen
            check_option(field, value)

    def changed(self, **values: Any) -> Self:
        """The same with other values.

        Raises:
            TypeError: If a name is no option; the message says which are like it.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, 3, 0.5)
                advice = f"Did you mean {' or '.join(f'`{each}`' for each in near)}?" if near else ""
                advice = advice or f"Options are {', '.join(known)}."
                raise TypeError(f"`{name}` is no option of {type(self).__name__}. {advice}")
        return dataclasses.replace(self, **values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `config.json` holds them; a model given by the caller becomes its name."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, value in values.items():
            if dataclasses.is_dataclass(value) and not isinstance(value, type):  # an `Augment`
                changes, defaults = dataclasses.asdict(value), dataclasses.asdict(type(value)())
                values[name] = {key: change for key, change in changes.items() if change != defaults[key]}
            elif name == "model" and not isinstance(value, str):
                values[name] = value.name
            elif isinstance(value, dict):
                values[name] = {str(key): part for key, part in value.items()}
            elif name == "augment" and not isinstance(value, str | None):
                from tfopt.recipes.augmenting import described

                values[name] = described(value)
        return values

    @classmethod
    def from_file(cls, path: str | pathlib.Path, **overrides: Any) -> Self:
        """Reads a JSON file of field names and values, such as the `config.json` of another run."""
        try:
            values = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{str(path)!r} is no JSON file: {error}.") from error
        if not isinstance(values, dict):
            raise ValueError(f"{str(path)!r} must hold options and values in braces. Received: {values!r}.")
        values.pop("data", None)  # where a run's images came from, which `config.json` tells
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"{str(path)!r} has options that {cls.__name__} does not know: {unknown}.")
        values = {**values, **overrides}
        if isinstance(values.get("augment"), dict):
            from tfopt.data import Augment

            values["augment"] = Augment(**values["augment"])
        return cls(**values)


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """The types and values that an annotation allows: int and "auto" of `int | Literal["auto"]`."""
    found: list[Any] = []
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    for part in typing.get_args(annotation) if union else (annotation,):
        if typing.get_origin(part) is Literal:
            found += typing.get_args(part)
        else:
            found.append(None if part is types.NoneType else part)
    return tuple(found)


def check_option(field: dataclasses.Field, value: Any) -> None:
    """Checks the value of one option, as `Options` does."""
    possible = alternatives(field.type)
    if any(_fits(kind, value, field.metadata["bounds"]) for kind in possible):
        return
    of_its_type = any(_has_type(kind, value) for kind in possible)
    text = _checks.message(field.name, expected(field), value)
    raise ValueError(text) if of_its_type else TypeError(text)


def expected(field: dataclasses.Field, command_line: bool = False) -> str:
    """What a field takes, in the words of Python or of the command line: "an integer >= 0 or 'auto'"."""
    words, values = [], []
    for kind in alternatives(field.type):
        if kind is int or kind is float:
            interval = _checks.interval(**field.metadata["bounds"])
            words.append(("an integer" if kind is int else "a number") + interval)
        elif kind is str:
            words.append("a string")
        elif kind is bool:
            values += [True, False]
        elif kind in _IN_PYTHON or isinstance(kind, typing.ForwardRef):
            name = getattr(kind, "__forward_arg__", kind)
            if not command_line:
                words.append(_IN_PYTHON.get(name, f"a {name}"))
            elif kind is dict:
                words.append("numbers by class, CLASS=X,...,")
        else:
            values.append(kind)
    if values:
        several = len(values) > 1 and not words
        spelled = ", ".join(_spelled(value, command_line) for value in values)
        words.append(("one of " if several else "") + spelled)
    return " or ".join(words)


def _spelled(value: Any, command_line: bool) -> str:
    names = {None: "none", True: "yes", False: "no"}
    if not command_line:
        return repr(value)
    return names[value] if value is None or isinstance(value, bool) else str(value)


def _fits(kind: Any, value: Any, bounds: dict[str, Any]) -> bool:
    if not _has_type(kind, value):
        return False
    if kind is int or kind is float:
        try:
            _checks.check_number("", value, **bounds)
        except ValueError:
            return False
        return True
    return isinstance(kind, type | typing.ForwardRef) or value == kind


def _has_type(kind: Any, value: Any) -> bool:
    """Whether a value has a type, or the type of a value that may be chosen."""
    if isinstance(kind, typing.ForwardRef):
        return _is_instance(value, kind.__forward_arg__)
    if kind is int or kind is float:
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    return isinstance(value, kind if isinstance(kind, type) else type(kind))


def _is_instance(value: Any, name: str) -> bool:
    """Whether a value is an instance of the class of a dotted name, imported only if it may be one."""
    if value is None or isinstance(value, str | numbers.Real | list | tuple | dict):
        return False
    module, _, attribute = name.rpartition(".")
    return isinstance(value, getattr(importlib.import_module(module), attribute))
