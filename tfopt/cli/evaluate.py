"""`tfopt evaluate`: accuracy, size and latency of a file on images."""

import argparse
from typing import Any

from tfopt.cli._arguments import DATA_HELP


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's flags and help."""
    command = commands.add_parser(
        "evaluate",
        help="how good is this file on these images?",
        description="Accuracy, size and latency of a .keras or .tflite file on one split of a data set.",
        epilog="Example: tfopt evaluate runs/photos/model.tflite --data photos/ --split test",
    )
    command.add_argument("model", metavar="MODEL", help=".keras or .tflite file")
    command.add_argument("--data", required=True, help=DATA_HELP)
    command.add_argument("--split", default="test", help="train, validation or test (default: test)")
    command.add_argument("--seed", type=int, default=0, help="of the splits, as in training (default: 0)")
    command.add_argument(
        "--on-bad-image", default="raise", choices=("raise", "skip"), help="unreadable files"
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.set_defaults(run=run)
    return command


def run(parsed: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    from tfopt.recipes import evaluate

    comparison = evaluate(
        parsed.model, parsed.data, split=parsed.split, seed=parsed.seed, on_bad_image=parsed.on_bad_image
    )
    print(comparison.to_json() if parsed.json else comparison)
    return 0
