"""The process and the machine around it, told without TensorFlow, which may be what is broken."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys

TERMINATE: int = signal.SIGTERM
KILL: int = signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL


def signal_group(process: subprocess.Popen, number: int) -> None:
    """Signals a process that has a session of its own, and its children; on Windows only the process."""
    if sys.platform == "win32":
        process.kill() if number == KILL else process.terminate()
        return
    with contextlib.suppress(ProcessLookupError):  # nobody of this group lives
        os.killpg(process.pid, number)


def visible_cpus() -> int:
    """Cores that this process may run on: as many threads as TensorFlow starts."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def usable_cpus() -> float:
    """Cores that this process gets: those it sees, or the container's quota if that is less."""
    quota = system_text("/sys/fs/cgroup/cpu.max").split()
    if not quota:  # control groups of version 1, in which -1 stands for no limit
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        quota = "".join(system_text(f"/sys/fs/cgroup/cpu/{name}") + " " for name in names).split()
    if len(quota) == 2 and quota[0] not in ("max", "-1"):
        return min(visible_cpus(), int(quota[0]) / int(quota[1]))
    return float(visible_cpus())


def cache_folder() -> pathlib.Path:
    """Where measurements are remembered unless told otherwise."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tfopt"


def system_text(path: str) -> str:
    """The text of a file of the system, empty where there is none: not Linux, or a process that ended."""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
