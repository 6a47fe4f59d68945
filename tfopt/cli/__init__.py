"""The `tfopt` command: flags to arguments, results to text, errors to one sentence; one file per command.

Exit codes: 0 done; 1 an error, told in one sentence, or a check that found faults; 2 wrong flags; 3 done but
for some images that cannot be read (`predict`); 70 a fault of tfopt; 130 Ctrl-C; 141 the reader of the output
has ended, as `head` does.
"""

import argparse
import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from tfopt import __version__
from tfopt.cli import (
    compress,
    data,
    doctor,
    evaluate,
    export,
    finetune,
    launch,
    lr_find,
    models,
    predict,
    search,
)
from tfopt.cli._messages import is_expected, sentence
from tfopt.cli._quiet import quiet_libraries
from tfopt.cli._streams import LastingOutput
from tfopt.cli._workers import check_command, cluster, leave

FAILED, FAULT, INTERRUPTED, CLOSED = 1, 70, 130, 141
COMMANDS = (finetune, compress, export, predict, evaluate, lr_find, search, models, launch, data, doctor)
_KEEPS_WHAT_IS_TRAINED = ("finetune", "compress", "search")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    _be_quiet()
    parser = _parser()
    workers = cluster()
    is_other = workers is not None and workers.index > 0  # the chief says the same
    with contextlib.redirect_stderr(io.StringIO()) if is_other else contextlib.nullcontext():
        parsed = parser.parse_args(arguments)
    level = logging.ERROR if is_other else logging.WARNING
    logging.basicConfig(level=logging.INFO if parsed.verbose else level, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        check_command(parsed, workers)
        with _streams_for(parsed):
            code = parsed.run(parsed)
        sys.stdout.flush()  # here, where it is known what a closed pipe means
        return code
    except KeyboardInterrupt:
        print("\nStopped." + _what_is_kept(parsed), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return CLOSED
    except Exception as error:
        if parsed.verbose:
            raise
        text = f"tfopt {parsed.command}: {sentence(error, parsed.parser)}"
        code = FAILED if is_expected(error) else FAULT
        if workers is not None:
            leave(workers, error, text, code)
        print(text, file=sys.stderr)
        return code


def _be_quiet() -> None:
    """Keeps what is no news on this machine off the terminal, unless the environment says otherwise."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # also for child processes
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names of classes on an ASCII terminal


@contextlib.contextmanager
def _streams_for(parsed: argparse.Namespace) -> Iterator[None]:
    """Standard error without noise; an output that may fail, where something is trained."""
    trains = parsed.command in _KEEPS_WHAT_IS_TRAINED
    output: Any = LastingOutput(sys.stdout) if trains else sys.stdout
    quiet = contextlib.nullcontext() if parsed.verbose else quiet_libraries()
    with contextlib.redirect_stdout(output), quiet:
        yield


def _what_is_kept(parsed: argparse.Namespace) -> str:
    """How to go on, where there is something to go on from."""
    if parsed.command not in _KEEPS_WHAT_IS_TRAINED:
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
        command.set_defaults(parser=command)
    return parser
