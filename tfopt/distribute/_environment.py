"""What a launched worker finds in its environment: the cluster, its share of threads and GPUs; free ports.

Nothing here imports TensorFlow, which takes seconds and memory that only the workers need.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from tfopt._checks import check_integer, message
from tfopt._surroundings import visible_cpus
from tfopt.distribute.cluster import is_address

LOOPBACK = "127.0.0.1"
DATA_SERVICE = "TFOPT_DATA_SERVICE"  # the variable that tells a training worker where the data workers are


@contextlib.contextmanager
def reserved_addresses(number: int) -> Iterator[list[str]]:
    """Free ports of the loopback interface, kept free for the children of this process.

    The sockets stay bound, without listening: others cannot get the ports, while TensorFlow's server, which
    binds with SO_REUSEADDR as they do, can.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((LOOPBACK, 0))
        yield [f"{LOOPBACK}:{one.getsockname()[1]}" for one in sockets]


def check_hosts(hosts: Sequence[str]) -> None:
    """Refuses addresses that are not `"host:port"` or are given twice."""
    if not hosts or len(set(hosts)) < len(hosts) or not all(map(is_address, hosts)):
        raise ValueError(message("hosts", 'different addresses "host:port"', hosts))


def check_index(index: int, hosts: Sequence[str]) -> int:
    """Refuses an index that is no place in `hosts`."""
    if check_integer("index", index, minimum=0) >= len(hosts):
        raise ValueError(message("index", f"below {len(hosts)}, the number of `hosts`", index))
    return index


def own_index(hosts: Sequence[str]) -> int:
    """Which of the addresses is this machine's: the one that a socket can be bound to.

    Raises:
        ValueError: If none or several are.
    """
    own = [index for index, host in enumerate(hosts) if _is_mine(host)]
    if len(own) != 1:
        found = "several" if own else "none"
        expected = f"addresses of which one is this machine's ({found} are)"
        raise ValueError(message("hosts", expected, hosts, _INDEX))
    return own[0]


_INDEX = "Or say which one this machine is with `index`."


def worker_environment(addresses: list[str], index: int, local: int, local_workers: int) -> dict[str, str]:
    """Variables for one worker: `local` is its place among the `local_workers` of this machine.

    Thread counts that are already in the environment are kept.
    """
    share = max(1, visible_cpus() // local_workers)
    threads = {
        "OMP_NUM_THREADS": share,
        "TF_NUM_INTRAOP_THREADS": share,
        "TF_NUM_INTEROP_THREADS": max(2, share),  # a collective must not wait for a thread that waits for it
    }
    task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    gpus = _gpus(os.environ)
    return {
        "TF_CONFIG": json.dumps(task),
        **{name: os.environ.get(name, str(count)) for name, count in threads.items()},
        **(
            {"CUDA_VISIBLE_DEVICES": ",".join(gpus[local::local_workers])}
            if 1 < local_workers <= len(gpus)
            else {}
        ),
    }


def data_servers(addresses: Sequence[str]) -> dict[str, list[str]]:
    """One command line per data worker, by name; the first hands out the work."""
    code = "import sys, tfopt; tfopt.distribute.serve_data(*sys.argv[1:])"
    return {
        f"data-{k}": [sys.executable, "-c", code, address, *([addresses[0]] if k else [])]
        for k, address in enumerate(addresses)
    }


def _gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that workers of this machine may share; as the driver counts them, without TensorFlow."""
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [gpu for gpu in listed.split(",") if gpu not in ("", "-1")]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        lines = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=60).stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):  # no driver
        return []
    return [str(index) for index in range(sum(line.startswith("GPU ") for line in lines))]


def _is_mine(address: str) -> bool:
    host = address.rsplit(":", 1)[0]
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.bind((host, 0))
        return True
    return False
