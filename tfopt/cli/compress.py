"""`tfopt compress`: a trained model made small and fast; its flags are the fields of `CompressConfig`."""

import argparse
from typing import Any

from tfopt.cli._arguments import DATA_HELP, add_options, given_options, section_of
from tfopt.recipes.compress_config import CompressConfig


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's flags and help."""
    command = commands.add_parser(
        "compress",
        usage="tfopt compress MODEL --data DATA [flags below]",
        help="a trained model in; a small, fast, verified file and a report out",
        description="Removes channels, prunes, clusters and quantizes a saved classifier as asked for, "
        "trains it between, checks the exported file on test images, and writes report.html. Run the same "
        "command again to go on after an interruption.",
        epilog="Example: tfopt compress runs/photos/model.keras --data photos/ --sparsity 0.8",
    )
    command.add_argument("model", metavar="MODEL", help=".keras file")
    section_of(command, "images").add_argument(
        "--data", required=True, help=DATA_HELP + "; what the model was trained on"
    )
    add_options(command, CompressConfig)
    section_of(command, "a smaller file").add_argument(
        "--front",
        nargs="?",
        const="auto",
        metavar="SIZES",
        help="Files of several sizes in one run, each in a folder of its own, and a page with the accuracy "
        "of each. SIZES such as 250k,120k,60k; without SIZES, five of the model's own.",
    )
    command.set_defaults(run=run)
    return command


def run(parsed: argparse.Namespace) -> int:
    """Calls `tfopt.recipes.compress`, or `compress_front`."""
    config = CompressConfig(**given_options(parsed, CompressConfig))
    if parsed.front is not None:
        from tfopt.recipes import compress_front

        compress_front(parsed.model, parsed.data, parsed.front, config)
        return 0
    from tfopt.recipes import compress

    compress(parsed.model, parsed.data, config)
    return 0
