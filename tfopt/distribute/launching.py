"""`launch`: several workers on this machine (or one of several), restarted together when one fails."""

import contextlib
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TextIO

from tfopt._checks import check_integer, check_number, message
from tfopt.distribute._environment import (
    DATA_SERVICE,
    check_hosts,
    check_index,
    data_servers,
    own_index,
    reserved_addresses,
    worker_environment,
)
from tfopt.distribute._isolation import private_network
from tfopt.distribute._process import ProcessGroup

_logger = logging.getLogger(__name__)


def launch(
    command: Sequence[str],
    workers: int = 2,
    *,
    hosts: Sequence[str] | None = None,
    index: int | None = None,
    data_workers: int = 0,
    max_restarts: int = 0,
    grace_seconds: float = 30.0,
    isolate: bool = False,
    log_dir: str | os.PathLike | None = None,
    output: TextIO | None = sys.stdout,
) -> int:
    """Runs a script on several workers; `make_strategy()` in the script finds the others.

    The first failure ends all workers: TERM, so that they may save; KILL after the grace, because
    TensorFlow ignores TERM in workers. Then all start again, up to `max_restarts` times; with
    `tfopt.callbacks.Resume` they go on where they were. TERM or Ctrl-C to the launcher ends them likewise,
    without a restart.

    Security: the servers that TensorFlow starts in workers listen on all network interfaces of the machine,
    without encryption or authentication, whatever address they are given. Whoever reaches their ports can run
    operations in your processes, reading and writing files among them. Launch behind a firewall or in a
    private network, or with `isolate`.

    Args:
        command: The script and its arguments, `["train.py", "--epochs", "3"]`; or `["-m", "package.module"]`;
            or a command of tfopt, `["finetune", "--data", "photos"]`.
        workers: How many on this machine. Each gets its share of the CPU threads and, if there are as many
            GPUs as workers, of the GPUs.
        hosts: Instead of `workers`: addresses `"host:port"`, one worker each. Run the same command on every
            host; each starts its own worker.
        index: Which of `hosts` this machine is. None: the one whose address is this machine's.
        data_workers: Processes that prepare data for all workers; see `prepare_remotely`.
        max_restarts: How often to start again after a failure.
        grace_seconds: Time to save between TERM and KILL.
        isolate: Give the workers a network of their own that nobody else reaches, and from which they reach
            nobody else: no downloads. On Linux, for workers of this machine only.
        log_dir: Directory for one `worker-<name>.log` each. Made if it does not exist.
        output: Where the workers' lines go, each with its `[index]`. None: nowhere.

    Raises:
        ValueError: If a number is out of bounds, this machine is none of the hosts, or `isolate` is used with
            `hosts`.
        RuntimeError: If the system does not allow `isolate`.

    Returns:
        0, or the exit code of the first failure (128 + the signal's number after a signal).

    Example:

    >>> tfopt.distribute.launch(["train.py"], workers=2, max_restarts=1)
    0
    """
    check_integer("workers", workers, minimum=1)
    check_integer("data_workers", data_workers, minimum=0)
    check_integer("max_restarts", max_restarts, minimum=0)
    check_number("grace_seconds", grace_seconds, minimum=0.0)
    if log_dir is not None:
        os.makedirs(log_dir, exist_ok=True)
    if hosts is not None:
        if data_workers:
            raise ValueError(message("data_workers", "0 with `hosts`", data_workers, _SERVE))
        if isolate:
            raise ValueError(message("isolate", "False with `hosts`, which are other machines", isolate))
        check_hosts(hosts)
        index = own_index(hosts) if index is None else check_index(index, hosts)
    line = [sys.executable, *python_arguments(command)]
    with contextlib.ExitStack() as stack:
        prefix = stack.enter_context(private_network()) if isolate else []
        if not isolate and (hosts is not None or workers + data_workers > 1):
            _logger.warning(_OPEN)
        for attempt in range(max_restarts + 1):
            with _processes(line, prefix, hosts, index, workers, data_workers, attempt) as parts:
                group = ProcessGroup(*parts, output=output, log_dir=log_dir)
                names = [name for name in parts[0] if name.isdigit()]
                code, interrupted = _supervise(group, names, grace_seconds)
            if code == 0 or interrupted:
                break
    return code


def python_arguments(command: Sequence[str]) -> list[str]:
    """The arguments of Python that run a script, a module (`-m`) or a command of tfopt."""
    first, *rest = command
    if first == "tfopt" and rest:
        return ["-m", "tfopt", *rest]
    is_name = re.fullmatch(r"[a-z][a-z-]*", first) and not os.path.exists(first)
    return ["-m", "tfopt", *command] if is_name else list(command)


@contextlib.contextmanager
def _processes(
    line: list[str],
    prefix: list[str],
    hosts: Sequence[str] | None,
    index: int | None,
    workers: int,
    data_workers: int,
    attempt: int,
) -> Iterator[tuple[dict[str, list[str]], dict[str, dict[str, str]]]]:
    """Command lines and environments of one attempt, by name; the ports are reserved meanwhile."""
    with contextlib.ExitStack() as stack:
        addresses = list(hosts) if hosts is not None else stack.enter_context(reserved_addresses(workers))
        own = [index] if index is not None else list(range(workers))
        service = stack.enter_context(reserved_addresses(data_workers))
        environments = {
            str(k): {
                **worker_environment(addresses, k, local, len(own)),
                **({DATA_SERVICE: service[0]} if service else {}),
                "TFOPT_ATTEMPT": str(attempt),
            }
            for local, k in enumerate(own)
        }
        commands = dict.fromkeys(environments, line) | data_servers(service)
        environments |= {name: {"CUDA_VISIBLE_DEVICES": "-1"} for name in commands.keys() - environments}
        yield {name: [*prefix, *one] for name, one in commands.items()}, environments


_OPEN = (
    "TensorFlow's servers in the workers listen on all network interfaces, without authentication: whoever "
    "reaches their ports can run operations in them. Launch behind a firewall or in a private network; on "
    "one Linux machine, `--isolate` gives the workers a network of their own."
)
_SERVE = (
    "Start `tfopt.distribute.serve_data` on the machines that prepare data, and set TFOPT_DATA_SERVICE "
    "to the address of the first one on those that train."
)


class _Interrupt(Exception):
    """Raised in the main thread by SIGTERM and SIGINT."""


def _supervise(group: ProcessGroup, names: Sequence[str], grace_seconds: float) -> tuple[int, bool]:
    """The exit code, and whether a signal to this process was the reason to stop."""
    try:
        with _interruptible():
            return group.wait(names), False
    except _Interrupt as interrupt:
        return 128 + interrupt.args[0], True
    finally:
        group.stop(grace_seconds)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise _Interrupt(number)

    if threading.current_thread() is not threading.main_thread():  # only there signals can be handled
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
