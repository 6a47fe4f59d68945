"""`tfopt finetune`: the main job; its flags are the fields of `FinetuneConfig`."""

import argparse
import dataclasses
import types
import typing
from typing import Any

from tfopt.cli._arguments import DATA_HELP


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's flags and help."""
    from tfopt.recipes.config import FinetuneConfig

    command = commands.add_parser(
        "finetune",
        help="a folder of images in; a trained, compressed, verified model and a report out",
        description="Fine-tunes a network on images, prunes and quantizes it, checks the exported file on "
        "test images, and writes report.html. Run the same command again to go on after an interruption.",
        epilog="Example: tfopt finetune --data photos/ --weights imagenet --sparsity 0.8 --output runs/p",
    )
    command.add_argument("--data", required=True, help=DATA_HELP)
    command.add_argument("--config", metavar="FILE", help="JSON file of options; flags replace its values")
    for field in dataclasses.fields(FinetuneConfig):
        _add_field(command, field)
    command.set_defaults(run=run)
    return command


def _add_field(command: argparse.ArgumentParser, field: dataclasses.Field) -> None:
    """A flag for a field; fields that are not given keep what the configuration file or default says."""
    flag = "--" + field.name.replace("_", "-")
    help_text = f"{field.metadata['help']} (default: {_shown(field.default)})"
    if field.type is bool:
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


def _shown(default: Any) -> str:
    return "automatic" if default is None else str(default)


def _converter(annotation: Any) -> Any:
    """int, float or str; "none" stands for None where the field may be None."""
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    kind = next((option for option in (int, float) if option in options), str)

    def convert(text: str) -> Any:
        return None if text.lower() == "none" else kind(text)

    convert.__name__ = kind.__name__  # argparse names it in its error: invalid int value
    return convert


def run(parsed: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    import tfopt

    names = {field.name for field in dataclasses.fields(tfopt.FinetuneConfig)}
    given = {name: value for name, value in vars(parsed).items() if name in names}
    if parsed.config:
        config = tfopt.FinetuneConfig.from_file(parsed.config, **given)
    else:
        config = tfopt.FinetuneConfig(**given)
    tfopt.finetune(parsed.data, config)
    return 0
