"""The `tfopt` command: flags to arguments, results to text, errors to one sentence; one file per command."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from tfopt import __version__
from tfopt.cli import compress, data, doctor, evaluate, finetune, launch, lr_find, predict, search

INTERRUPTED, FAILED = 130, 1
COMMANDS = (finetune, compress, predict, evaluate, lr_find, search, launch, data, doctor)  # as in --help


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 1 after an error, 130 after Ctrl-C."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # hints about CPU instructions are no news
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if parsed.verbose else logging.WARNING, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        return parsed.run(parsed)
    except KeyboardInterrupt:
        print("\nStopped." + _what_is_kept(parsed), file=sys.stderr)
        return INTERRUPTED
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        if parsed.verbose:
            raise
        print(f"tfopt {parsed.command}: {error}", file=sys.stderr)
        return FAILED


def _what_is_kept(parsed: argparse.Namespace) -> str:
    """How to go on, where there is something to go on from."""
    if parsed.command not in ("finetune", "compress", "search"):
        return ""
    without = " without --overwrite" if getattr(parsed, "overwrite", False) else ""
    return f" What is trained is kept; the same command{without} goes on from there."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tfopt",
        description="Train Keras models faster, and ship them smaller.",
        epilog="tfopt COMMAND --help explains a command. Example: tfopt finetune --data photos/",
    )
    parser.add_argument("--version", action="version", version=f"tfopt {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        command = module.add(commands)
        command.add_argument("--verbose", action="store_true", help="log decisions; trace errors")
    return parser
