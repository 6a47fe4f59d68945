"""What this machine is and has: a name for its kind, its free memory, and how much a process holds."""

import importlib.metadata
import os
import platform

import tensorflow as tf

from tfopt._surroundings import system_text, usable_cpus

_VARIABLES = ("TF_NUM_INTRAOP", "TF_NUM_INTEROP", "OMP_NUM_THREADS", "TF_XLA_FLAGS", "XLA_FLAGS")


def signature() -> dict[str, str]:
    """What a measurement of speed depends on besides the model: processors, devices and versions."""
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
    packages = {name: importlib.metadata.version(name) for name in ("tfopt", "tensorflow", "keras")}
    return {
        "cpu": f"{available_cpus()} of {_cpu_model()}",
        "gpu": ", ".join(details),
        "python": platform.python_version(),
        **packages,
        **{name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)},
    }


def available_cpus() -> int:
    """Cores that this process may use, whole ones."""
    return max(1, round(usable_cpus()))


def available_memory() -> int:
    """Bytes that programs can still take: of the machine, or of the container if that allows less."""
    free = _field("/proc/meminfo", "MemAvailable") * 1024
    limit, used = (system_text(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if limit.isdigit() and used.isdigit():
        free = min(free, int(limit) - int(used))
    return free


def resident_memory(process: int) -> int:
    """Bytes that a process holds, 0 if it is gone."""
    return _field(f"/proc/{process}/status", "VmRSS") * 1024


def _cpu_model() -> str:
    for line in system_text("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _field(path: str, name: str) -> int:
    """A number of kilobytes from a file of the system."""
    for line in system_text(path).splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0
