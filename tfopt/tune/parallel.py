"""A search on several processes of this machine: `tfopt launch --tuner`."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from tfopt._checks import check_integer
from tfopt.distribute._environment import reserved_addresses, worker_environment
from tfopt.distribute._process import ProcessGroup
from tfopt.tune.tuner import WORKERS_VARIABLE

_POLL_SECONDS = 0.05


def launch_search(
    command: Sequence[str],
    workers: int = 2,
    *,
    max_restarts: int = 1,
    grace_seconds: float = 5.0,
    log_dir: str | os.PathLike | None = None,
    output: TextIO | None = sys.stdout,
) -> int:
    """Runs a script that calls `tfopt.tune.search` in one chief, which hands out trials, and some workers.

    Worth it where one trial does not use all cores, or with one GPU per worker. A worker that dies is
    started again and repeats its unfinished trial; finished trials are in the journal already. The port
    of the chief is open to this machine only.

    Args:
        command: The script and its arguments, such as `["search.py", "--trials", "20"]`.
        workers: Processes that run trials, >= 1. Each gets its share of the threads and GPUs.
        max_restarts: How often each worker is started again, >= 0.
        grace_seconds: Time between TERM and KILL when the search is given up.
        log_dir: Directory for one log per process.
        output: Where the lines of all processes go, each with its `[name]`. None: nowhere.

    Returns:
        0, or the exit code of the process whose failure ended the search.
    """
    check_integer("workers", workers, minimum=1)
    check_integer("max_restarts", max_restarts, minimum=0)
    if log_dir is not None:
        os.makedirs(log_dir, exist_ok=True)
    with reserved_addresses(1) as (address,):
        pass  # gRPC does not share a port that is reserved; it is free for the chief now
    environments = _environments(address, workers)

    def start(name: str) -> ProcessGroup:
        line = [sys.executable, *command]
        return ProcessGroup({name: line}, {name: environments[name]}, output=output, log_dir=log_dir)

    running = {name: start(name) for name in environments}
    restarts = {name: max_restarts for name in environments if name != "chief"}
    try:
        while running:
            for name, group in list(running.items()):
                code = _exit_code(name, group)
                if code == 0:
                    del running[name]
                elif code is not None and restarts.get(name, 0) > 0:
                    restarts[name] -= 1
                    running[name] = start(name)
                elif code is not None:
                    return code
        return 0
    finally:
        for group in running.values():
            group.terminate()
        for group in running.values():
            group.stop(grace_seconds)


def _exit_code(name: str, group: ProcessGroup) -> int | None:
    try:
        return group.wait([name], timeout_seconds=_POLL_SECONDS)
    except TimeoutError:
        return None


def _environments(address: str, workers: int) -> Mapping[str, dict[str, str]]:
    host, port = address.split(":")
    common = {
        "KERASTUNER_ORACLE_IP": host,
        "KERASTUNER_ORACLE_PORT": port,
        WORKERS_VARIABLE: str(workers),
    }
    environments = {"chief": {**common, "KERASTUNER_TUNER_ID": "chief", "CUDA_VISIBLE_DEVICES": "-1"}}
    for index in range(workers):
        own = worker_environment([address], 0, index, workers)
        del own["TF_CONFIG"]  # the workers know the chief only, not each other
        environments[f"tuner{index}"] = {**common, **own, "KERASTUNER_TUNER_ID": f"tuner{index}"}
    return environments
