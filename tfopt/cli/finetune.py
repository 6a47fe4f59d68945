"""`tfopt finetune`: the main job; its flags are the fields of `FinetuneConfig`."""

import argparse
import dataclasses
from typing import Any

from tfopt.cli._arguments import DATA_HELP, add_fields


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
    command.add_argument("--autotune", action="store_true", help="first measure how it trains fastest here")
    add_fields(command, FinetuneConfig)
    command.set_defaults(run=run)
    return command


def run(parsed: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    import tfopt

    names = {field.name for field in dataclasses.fields(tfopt.FinetuneConfig)}
    given = {name: value for name, value in vars(parsed).items() if name in names}
    if parsed.config:
        config = tfopt.FinetuneConfig.from_file(parsed.config, **given)
    else:
        config = tfopt.FinetuneConfig(**given)
    if parsed.autotune:
        config, found = tfopt.tune.autotune(parsed.data, config)
        print(found.summary())
    tfopt.finetune(parsed.data, config)
    return 0
