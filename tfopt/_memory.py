"""How much memory this process may still use: of the machine, of its container, of its limits."""

import os
import pathlib

_CGROUPS = pathlib.Path("/sys/fs/cgroup")
_OWN_CGROUPS = pathlib.Path("/proc/self/cgroup")
_UNLIMITED = 2**60  # cgroup v1 writes a number near 2^63 for no limit


def free_memory() -> int:
    """Bytes that can be used without swapping and without reaching the limit of the container."""
    return max(min(_of_machine(), *_of_containers(), _of_process()), 0)


def _of_machine() -> int:
    try:
        with open("/proc/meminfo", encoding="utf-8") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):  # not Linux
        pass
    try:
        import psutil

        return int(psutil.virtual_memory().available)
    except ImportError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4


def _of_containers() -> list[int]:
    """What is left below the limit of each control group that the process is in, v1 and v2."""
    try:
        lines = _OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return [_UNLIMITED]
    left = [_UNLIMITED]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            names, root = ("memory.max", "memory.current", "inactive_file"), _CGROUPS
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            root = _CGROUPS / "memory"
        else:
            continue
        group = root / path.lstrip("/")
        for place in (group, *group.parents):  # a parent's limit holds for its children
            if place == root.parent:
                break
            left.append(_left_in(place, *names))
    return left


def _left_in(group: pathlib.Path, limit_name: str, usage_name: str, reclaimable: str) -> int:
    try:
        limit = (group / limit_name).read_text(encoding="utf-8").strip()
        if limit == "max" or int(limit) >= _UNLIMITED:
            return _UNLIMITED
        used = int((group / usage_name).read_text(encoding="utf-8"))
        pairs = (line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
        cached = next((int(value) for name, value in pairs if name == reclaimable), 0)
        return int(limit) - used + cached  # files that are cached make room
    except (OSError, ValueError):
        return _UNLIMITED


def _of_process() -> int:
    """What `ulimit -v` leaves."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return _UNLIMITED
        pages = int(pathlib.Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        return limit - pages * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError):
        return _UNLIMITED
