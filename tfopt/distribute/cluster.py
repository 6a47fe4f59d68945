"""Which workers train together: read from TF_CONFIG or Slurm, reached before TensorFlow waits for them."""

import contextlib
import dataclasses
import json
import re
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

NO_PARAMETER_SERVER = (
    "Keras 3's `fit` does not run under ParameterServerStrategy. Use synchronous workers instead "
    '(`make_strategy("multiworker")`, started with `tfopt launch`), and `tfopt launch --data-workers M` to '
    "let CPU machines prepare data for accelerators."
)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers that train in step, and which of them this process is.

    Attributes:
        workers: Addresses, `"host:port"`; the first one is the chief.
        index: This process's place in `workers`.
        local_index: Its place among the workers of the same machine.
        local_workers: How many workers the machine runs.
        source: Where this was read: "TF_CONFIG" or "Slurm".
    """

    workers: tuple[str, ...]
    index: int
    local_index: int
    local_workers: int
    source: str


def read_cluster(environment: Mapping[str, str]) -> Cluster | None:
    """The cluster that the environment describes, or None if it names no more than one worker.

    Raises:
        ValueError: For a malformed `TF_CONFIG` or Slurm variable, and for parameter servers.
    """
    if environment.get("TF_CONFIG"):
        return _from_tf_config(environment["TF_CONFIG"])
    if environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        return _from_slurm(environment)
    return None


def _from_tf_config(text: str) -> Cluster | None:
    try:
        config = json.loads(text)
        jobs, task = config.get("cluster", {}), config.get("task", {})
        workers = [*jobs.get("chief", []), *jobs.get("worker", [])]
        kind, index = task.get("type", "worker"), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise _malformed("TF_CONFIG", text, _TF_CONFIG_FORM) from error
    if "ps" in jobs:
        raise ValueError(f"TF_CONFIG names parameter servers ('ps'). {NO_PARAMETER_SERVER}")
    if not workers:
        return None
    if kind not in ("chief", "worker") or not all(map(is_address, workers)):
        raise _malformed("TF_CONFIG", text, _TF_CONFIG_FORM)
    if not 0 <= index < len(jobs.get(kind, [])):
        raise _malformed("TF_CONFIG", text, f"task {kind} {index} must be among the cluster's {kind}s")
    position = index + (len(jobs.get("chief", [])) if kind == "worker" else 0)
    return _cluster(workers, position, "TF_CONFIG")


_TF_CONFIG_FORM = (
    'its form is {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
)


def _from_slurm(environment: Mapping[str, str]) -> Cluster | None:
    """One worker per task of a job step (`srun`). Needs no GPU, unlike TensorFlow's own resolver."""
    hosts = _expand_nodes(_variable(environment, "SLURM_STEP_NODELIST"))
    counts = _expand_counts(_variable(environment, "SLURM_STEP_TASKS_PER_NODE"))
    index = _variable(environment, "SLURM_PROCID")
    job = _variable(environment, "SLURM_JOB_ID")
    if len(hosts) != len(counts):
        raise ValueError(
            f"Slurm lists {len(hosts)} nodes but task counts for {len(counts)}: {hosts}, {counts}."
        )
    if not index.isdigit() or int(index) >= sum(counts):
        raise _malformed("SLURM_PROCID", index, f"an integer below {sum(counts)}")
    first_port = 20000 + int(job) % 20000 if job.isdigit() else 20000  # two jobs may share a node
    workers = [f"{host}:{first_port + k}" for host, count in zip(hosts, counts) for k in range(count)]
    return _cluster(workers, int(index), "Slurm")


def _cluster(workers: Sequence[str], index: int, source: str) -> Cluster | None:
    if len(workers) < 2:
        return None
    host = workers[index].rsplit(":", 1)[0]
    neighbors = [k for k, worker in enumerate(workers) if worker.rsplit(":", 1)[0] == host]
    return Cluster(tuple(workers), index, neighbors.index(index), len(neighbors), source)


def _expand_nodes(text: str) -> list[str]:
    """ "a[1-2,05],b" -> ["a1", "a2", "a05", "b"]."""
    nodes: list[str] = []
    for prefix, ranges, suffix in re.findall(r"([^,\[\]]+)(?:\[([^\]]*)\])?([^,\[\]]*)", text):
        for part in ranges.split(",") if ranges else [""]:
            first, _, last = part.partition("-")
            if not re.fullmatch(r"\d*", first + last) or (last and int(last) < int(first or 0)):
                raise _malformed("SLURM_STEP_NODELIST", text, "such as node[01-03,07]")
            numbers = range(int(first), int(last or first) + 1) if first else [None]
            nodes += [
                prefix + ("" if number is None else f"{number:0{len(first)}d}") + suffix for number in numbers
            ]
    return nodes


def _expand_counts(text: str) -> list[int]:
    """ "2(x3),1" -> [2, 2, 2, 1]."""
    parts = [re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part) for part in text.split(",")]
    if not all(parts):
        raise _malformed("SLURM_STEP_TASKS_PER_NODE", text, "such as 2(x3),1")
    return [int(part[1]) for part in parts if part for _ in range(int(part[2] or 1))]


def _variable(environment: Mapping[str, str], name: str) -> str:
    if not environment.get(name):
        raise ValueError(
            f"The environment has SLURM_STEP_NUM_TASKS but no {name}. Start the script with `srun`."
        )
    return environment[name]


def _malformed(name: str, text: str, form: str) -> ValueError:
    return ValueError(f"The environment variable {name} is malformed: {form}. Received: {name}={text!r}.")


def is_address(worker: Any) -> bool:
    """Whether something is `"host:port"`, the host a name or an IPv4 or bracketed IPv6 address."""
    form = r"([^:\s]+|\[[0-9a-fA-F:]+\]):\d{1,5}"
    return isinstance(worker, str) and re.fullmatch(form, worker) is not None


def wait_for_peers(cluster: Cluster, seconds: float) -> None:
    """Waits until every other worker answers at its address.

    TensorFlow would wait without saying for whom. Every worker listens at its own address until it has
    reached all the others; by then TensorFlow's server takes over the port.

    Raises:
        TimeoutError: If a peer does not answer in time; names its address.
        OSError: If this worker's own port is taken.
    """
    deadline = time.monotonic() + seconds
    missing = [worker for k, worker in enumerate(cluster.workers) if k != cluster.index]
    with listen(cluster.workers[cluster.index]):
        while missing:
            missing = [worker for worker in missing if not answers(worker)]
            if missing and time.monotonic() > deadline:
                raise TimeoutError(
                    f"Worker {cluster.index} could not reach {', '.join(missing)} within {seconds:g} s. "
                    f"Check that these workers run, that the addresses ({cluster.source}) are right and that "
                    "no firewall is in between; a longer limit is `connect_seconds`."
                )
            time.sleep(0.05 if missing else 0.0)


def split_address(address: str) -> tuple[str, int]:
    """Host and port."""
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


def listen(address: str) -> socket.socket:
    """A socket that listens at a worker's own address.

    Raises:
        OSError: If the port is taken.
    """
    host, port = split_address(address)
    interface = host if host.startswith("127.") or host == "localhost" else ""
    listener = socket.socket(socket.AF_INET6 if address.startswith("[") else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((interface, port))
    except OSError as error:
        listener.close()
        raise OSError(f"This worker's port {port} ({address}) is taken: {error}.") from error
    listener.listen(128)
    return listener


def answers(address: str) -> bool:
    """Whether something accepts connections at an address."""
    with contextlib.suppress(OSError), socket.create_connection(split_address(address), timeout=2.0):
        return True
    return False
