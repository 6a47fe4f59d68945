"""What several commands share: words, and flags made from the options of a dataclass."""

import argparse
import dataclasses
import os
import typing
from collections.abc import Collection
from typing import Any

from tfopt._checks import check_number, interval
from tfopt.compress._pixel_scales import SCALES
from tfopt.recipes.options import GROUPS, alternatives, check_option, expected, meaning

DATA_HELP = (
    "a folder (class/*.jpg, or train/ and test/ with classes below), a .csv, .tsv or .parquet file, "
    "'digits', a folder of `tfopt data prepare`, or a TFDS name"
)
_TITLES = {
    "data": "images",
    "model": "network",
    "training": "training",
    "compression": "a smaller file",
    "machine": "speed on this machine",
    "output": "results",
}


def add_options(
    command: argparse.ArgumentParser,
    config: Any,
    names: Collection[str] = (),
    *,
    without: Collection[str] = (),
) -> None:
    """Adds a flag for each option of a dataclass, in the groups of `--help`.

    Only flags that are given appear in the parsed arguments; the others keep their default, or what a file
    of options says.

    Args:
        command: Gets the flags.
        config: The dataclass.
        names: Which options; empty is all.
        without: Which of them not.
    """
    wanted = [field for field in dataclasses.fields(config) if not names or field.name in names]
    fields = [field for field in wanted if field.name not in without]
    for group in GROUPS:
        section = section_of(command, _TITLES[group])
        for field in fields:
            if field.metadata["group"] == group:
                _add_flag(section, field)


def add_class_names(section: Any) -> None:
    """Adds `--class-names`, for models that were not made by tfopt."""
    section.add_argument(
        "--class-names",
        type=names_file,
        metavar="FILE",
        help="one name on each line, for a model that holds no names, in the order of its outputs",
    )


def add_input_scale(section: Any, auto: str) -> None:
    """Adds `--input-scale`.

    Args:
        section: Gets the flag.
        auto: What "auto" stands for in this command.
    """
    section.add_argument(
        "--input-scale",
        default="auto",
        choices=("auto", *SCALES),
        help="scale of the pixels that a Keras model was trained on: pixels is [0, 255], unit [0, 1], signed "
        f"[-1, 1], imagenet ImageNet's mean and deviation. auto: {auto}. Default: auto.",
    )


def section_of(command: argparse.ArgumentParser, title: str) -> Any:
    """The section of `--help` with a title, which is made where it is missing."""
    present = {group.title: group for group in command._action_groups}
    return present.get(title) or command.add_argument_group(title)


def given_options(parsed: argparse.Namespace, config: Any) -> dict[str, Any]:
    """The options of a dataclass that were given as flags."""
    names = {field.name for field in dataclasses.fields(config)}
    return {name: value for name, value in vars(parsed).items() if name in names}


def names_file(path: str) -> list[str]:
    """The lines of a file, for `type=` of a flag."""
    try:
        with open(os.path.expanduser(path), encoding="utf-8-sig") as file:
            names = [line.strip() for line in file]
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"cannot read {path!r}: {error}") from None
    while names and not names[-1]:
        names.pop()
    if len(names) < 2 or "" in names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(
            f"{path!r} must hold one name on each line, at least two, all different"
        )
    return names


def number(kind: type[int] | type[float], **bounds: Any) -> Any:
    """A converter for `type=` of a flag: int or float, with the bounds of `_checks.check_number`."""

    def convert(text: str) -> Any:
        try:
            value = kind(text)
            check_number("", value, **bounds)
        except ValueError:
            noun = "an integer" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {noun}{interval(**bounds)}, not {text!r}") from None
        return value

    return convert


def _add_flag(section: Any, field: dataclasses.Field) -> None:
    kinds = alternatives(field.type)
    arguments: dict[str, Any] = {
        "default": argparse.SUPPRESS,
        "help": meaning(field, command_line=True).replace("%", "%%"),
    }
    if bool in kinds:
        arguments["action"] = argparse.BooleanOptionalAction
    else:
        arguments |= {"type": _converter(field), "metavar": field.metadata["metavar"] or _metavar(kinds)}
    section.add_argument("--" + field.name.replace("_", "-"), **arguments)


def _metavar(kinds: Collection[Any]) -> str:
    """{adamw,lion,sgd}, or N for a number."""
    if int in kinds or float in kinds:
        return "N" if int in kinds else "X"
    if str in kinds:
        return "NAME"
    typed = [kind for kind in kinds if not isinstance(kind, typing.ForwardRef | type)]
    words = ["none" if kind is None else str(kind) for kind in typed]
    return "{" + ",".join(words) + "}"


def _converter(field: dataclasses.Field) -> Any:
    """Turns the text behind a flag into a checked value; "none" stands for None where that is a value."""
    kinds = alternatives(field.type)

    def convert(text: str) -> Any:
        value: Any = text
        if None in kinds and text.lower() == "none":
            return None
        for kind in (int, float):
            if kind in kinds or any(type(other) is kind for other in kinds):
                try:
                    value = kind(text)
                except ValueError:
                    continue
                break
        if dict in kinds and "=" in text:
            value = _by_class(text)
        try:
            check_option(field, value)
        except (TypeError, ValueError):
            raise argparse.ArgumentTypeError(
                f"must be {expected(field, command_line=True)}, not {text!r}"
            ) from None
        return value

    return convert


def _by_class(text: str) -> dict[str, float]:
    """{"cat": 3.0, "dog": 1.0} of "cat=3,dog=1"."""
    values = {}
    for part in text.split(","):
        name, _, number_text = part.rpartition("=")
        try:
            values[name.strip()] = float(number_text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"must be CLASS=NUMBER with commas between, not {text!r}"
            ) from None
    return values
