"""The process and the machine around it, told without TensorFlow, which may be what is broken."""

import os
import pathlib
import sys


def visible_cpus() -> int:
    """Cores that this process may run on: as many threads as TensorFlow starts."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def usable_cpus() -> float:
    """Cores that this process gets: those it sees, or the container's quota if that is less."""
    quota = system_text("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        return min(visible_cpus(), int(quota[0]) / int(quota[1]))
    return float(visible_cpus())


def cache_folder() -> pathlib.Path:
    """Where measurements are remembered unless told otherwise."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tfopt"


def system_text(path: str) -> str:
    """The text of a file of the system, empty where there is none: not Linux, or a process that ended."""
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return ""
