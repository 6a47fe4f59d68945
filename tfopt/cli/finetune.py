"""`tfopt finetune`: the main job; its flags are the fields of `FinetuneConfig`."""

import argparse
from typing import Any

from tfopt.cli._arguments import DATA_HELP, add_options, given_options, section_of
from tfopt.recipes.config import FinetuneConfig


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's flags and help."""
    command = commands.add_parser(
        "finetune",
        usage="tfopt finetune --data DATA [--config FILE] [--autotune] [flags below]",
        help="a folder of images in; a trained, compressed, verified model and a report out",
        description="Fine-tunes a network on images, prunes and quantizes it, checks the exported file on "
        "test images, and writes report.html. Run the same command again to go on after an interruption.",
        epilog="Example: tfopt finetune --data photos/ --weights imagenet --sparsity 0.8 --output runs/p",
    )
    section_of(command, "images").add_argument("--data", required=True, help=DATA_HELP)
    command.add_argument("--config", metavar="FILE", help="JSON file of options; flags replace its values")
    command.add_argument("--autotune", action="store_true", help="first measure how it trains fastest here")
    add_options(command, FinetuneConfig)
    command.set_defaults(run=run)
    return command


def run(parsed: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    given = given_options(parsed, FinetuneConfig)
    config = FinetuneConfig.from_file(parsed.config, **given) if parsed.config else FinetuneConfig(**given)
    import tfopt

    if parsed.autotune:
        config, found = tfopt.tune.autotune(parsed.data, config)
        print(found.summary())
    tfopt.finetune(parsed.data, config)
    return 0
