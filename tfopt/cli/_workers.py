"""One voice on several workers: which of them this process is, and who tells what went wrong."""

import argparse
import contextlib
import logging
import os
import signal
import sys
import time
from typing import Any, NoReturn

from tfopt.distribute.cluster import Cluster, read_cluster

SECONDS = 5.0  # in which the chief tells an error that all workers have, and `launch` ends the others
ON_ONE = ("export", "lr-find", "search")


def cluster() -> Cluster | None:
    """The workers that the environment names, if several. `make_strategy` tells what is malformed."""
    with contextlib.suppress(ValueError):
        return read_cluster(os.environ)
    return None


def strategy_of_workers() -> Any:
    """What several workers do their parts of a command under, made before anything uses TensorFlow; or None.

    None on one worker, where a `.tflite` file needs no TensorFlow.
    """
    if cluster() is None:
        return None
    from tfopt.distribute import make_strategy

    return make_strategy("multiworker")


def is_chief() -> bool:
    """Whether this process tells results: the only one, or the first of several."""
    found = cluster()
    return found is None or found.index == 0


def check_command(parsed: argparse.Namespace, found: Cluster | None) -> None:
    """Refuses commands that would do and write the same on every worker.

    Raises:
        ValueError: Naming what to do.
    """
    command = parsed.command
    alone = [f"--{flag}" for flag in ("autotune", "front") if getattr(parsed, flag, None)]
    if found is not None and alone:
        raise ValueError(
            f"{alone[0]} uses one worker, and {found.source} names {len(found.workers)}. "
            "Leave it out, or start without `tfopt launch`."
        )
    if found is not None and command in ON_ONE:
        searches = " `tfopt launch -n 2 search` runs trials side by side on one machine."
        raise ValueError(
            f"`tfopt {command}` uses one worker, and {found.source} names {len(found.workers)}, which would "
            "all do the same. Start it without `tfopt launch` and outside of `srun`."
            + (searches if command == "search" else "")
        )


def leave(found: Cluster, error: Exception, text: str, code: int) -> NoReturn:
    """Tells an error once, and ends the process at once: TensorFlow would first wait for the other workers.

    The chief tells. Another worker gives it time to, in which `launch` ends this process if both have the
    same error, and then tells its own.
    """
    if type(error).__name__ != "ChiefFailedError":
        if found.index > 0:
            signal.signal(signal.SIGTERM, lambda *_: os._exit(code))
            time.sleep(SECONDS)
        print(text, file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
