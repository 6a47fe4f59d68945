"""What several commands share: words, and flags from the fields of a dataclass."""

import argparse
import dataclasses
import types
import typing
from typing import Any

DATA_HELP = "a folder (class/*.jpg, or train/ and test/ with classes below), 'digits', or a TFDS name"


def add_fields(command: argparse.ArgumentParser, config: Any) -> None:
    """A flag for each field of a dataclass; only those that are given appear in the parsed arguments."""
    for field in dataclasses.fields(config):
        _add_field(command, field)


def _add_field(command: argparse.ArgumentParser, field: dataclasses.Field) -> None:
    """A flag for a field; fields that are not given keep what the configuration file or default says."""
    flag = "--" + field.name.replace("_", "-")
    help_text = f"{field.metadata['help']} (default: {_default(field)})"
    if _is_switch(field):
        command.add_argument(
            flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=help_text
        )
        return
    choices = field.metadata.get("choices")
    command.add_argument(
        flag,
        type=_converter(field.type),
        default=argparse.SUPPRESS,
        metavar="{" + ",".join(choices) + "}" if choices else field.name.upper(),
        help=help_text,
    )


def _is_switch(field: dataclasses.Field) -> bool:
    return bool in (field.type, *typing.get_args(field.type))


def _default(field: dataclasses.Field) -> str:
    """None is a value of its own where the type has it, but for switches; else it is filled in later."""
    if field.default is not None:
        return str(field.default)
    return "none" if isinstance(field.type, types.UnionType) and not _is_switch(field) else "automatic"


def _converter(annotation: Any) -> Any:
    """int, float or str; "none" stands for None where the field may be None."""
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    kind = next((option for option in (int, float) if option in options), str)

    def convert(text: str) -> Any:
        return None if text.lower() == "none" else kind(text)

    convert.__name__ = kind.__name__  # argparse names it in its error: invalid int value
    return convert
