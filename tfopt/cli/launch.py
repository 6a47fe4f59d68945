"""`tfopt launch`: one script on several workers."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

_SEARCH = ["-m", "tfopt", "search"]  # workers that are handed trials, and do not train together


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's flags and help."""
    command = commands.add_parser(
        "launch",
        help="run a training script on several workers",
        description="Starts workers that train one model together; `tfopt.distribute.make_strategy()` in "
        "the script finds the others. The first failure ends all. TensorFlow's servers in the workers listen "
        "on all network interfaces, without authentication: launch behind a firewall, or with --isolate.",
        epilog="Examples: tfopt launch -n 2 --max-restarts 1 train.py --epochs 3; "
        "tfopt launch -n 4 finetune --data photos",
    )
    command.add_argument("-n", "--workers", type=int, default=2, help="on this machine (default: 2)")
    command.add_argument(
        "--hosts",
        type=lambda text: text.split(","),
        metavar="HOST:PORT,...",
        help="one worker on each, instead of -n; run the same command on each",
    )
    command.add_argument("--index", type=int, help="which of --hosts this machine is")
    command.add_argument("--data-workers", type=int, default=0, help="processes that prepare data")
    command.add_argument("--max-restarts", type=int, default=0, help="after a failure (default: 0)")
    command.add_argument(
        "--grace", type=float, default=30.0, metavar="SECONDS", help="between TERM and KILL (default: 30)"
    )
    command.add_argument(
        "--tuner", action="store_true", help="the script calls `tfopt.tune.search`, as search does"
    )
    command.add_argument(
        "--isolate",
        action="store_true",
        help="workers have a network of their own, no downloads (Linux)",
    )
    command.add_argument("--log-dir", help="folder for one log per worker")
    command.add_argument("script", help="Python script, or a command of tfopt such as finetune")
    command.add_argument("arguments", nargs=argparse.REMAINDER, help="of the script")
    command.set_defaults(run=run)
    return command


def run(parsed: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    from tfopt.distribute import launch
    from tfopt.distribute.launching import python_arguments

    start: Callable[..., int] = partial(
        launch,
        hosts=parsed.hosts,
        index=parsed.index,
        data_workers=parsed.data_workers,
        isolate=parsed.isolate,
    )
    command = python_arguments([parsed.script, *parsed.arguments])
    if parsed.tuner or command[:3] == _SEARCH:
        if parsed.hosts or parsed.data_workers or parsed.isolate:
            kind = "--tuner" if parsed.tuner else "A search on several workers"
            raise ValueError(f"{kind} has no --hosts, no --data-workers and no --isolate.")
        from tfopt.tune import launch_search

        start = launch_search
    return start(
        command,
        parsed.workers,
        max_restarts=parsed.max_restarts,
        grace_seconds=parsed.grace,
        log_dir=parsed.log_dir,
        output=sys.stdout,
    )
