"""`tfopt doctor`: what this environment has, what is wrong with it and how to mend it."""

import importlib
import os
import pathlib
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Literal

import keras
import tensorflow as tf
from packaging.requirements import Requirement

from tfopt.tune.memory import cache_folder

_COMPILED = ("numpy", "h5py", "sklearn.tree", "PIL.Image", "matplotlib.pyplot", "ai_edge_litert.interpreter")
_LOW_DISK, _NO_DISK = 2e9, 2e8  # bytes: a cached data set no longer fits; a model no longer fits
_LOW_MEMORY = 2e9


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis.

    Args:
        subject: What was looked at.
        status: "ok", "warning" (works, but not as it should) or "broken" (something will fail).
        detail: What was found.
        fix: What to do about it; empty where all is well.
    """

    subject: str
    status: Literal["ok", "warning", "broken"]
    detail: str
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """For `tfopt doctor --json`."""
        return asdict(self)


def diagnose() -> list[Finding]:
    """Looks at packages, devices, threads, folders and known traps, and returns one finding for each.

    Use it when something does not work, and paste its output into a bug report. It changes nothing and
    needs no network. The command exits with status 1 if `is_broken` says so.

    Example:
        >>> from tfopt.doctor import diagnose
        >>> [finding.subject for finding in diagnose()][0]
        'python'
    """
    return [finding for check in _CHECKS for finding in check()]


def is_broken(findings: list[Finding]) -> bool:
    """Whether anything will fail."""
    return any(finding.status == "broken" for finding in findings)


def _python() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")


def _packages() -> Iterator[Finding]:
    """Every requirement of tfopt; without tensorboard, which TF 2.21 no longer brings, keras-tuner fails."""
    for line in requires("tfopt") or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, fix = requirement.name, f'pip install "{requirement.name}{requirement.specifier}"'
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Finding(name, "broken", "not installed", fix)
            continue
        if requirement.specifier.contains(found, prereleases=True):
            yield Finding(name, "ok", found)
        else:
            yield Finding(name, "broken", f"{found}, tested with {requirement.specifier}", fix)


def _compiled() -> Iterator[Finding]:
    """Extension modules built for another numpy fail on import, with messages that do not say so."""
    for module in _COMPILED:
        package = module.split(".")[0]
        try:
            importlib.import_module(module)
        except (ImportError, ValueError, AttributeError, SystemError) as error:
            fix = f"pip install --force-reinstall --no-cache-dir {package} (it must match numpy)"
            yield Finding(f"import {package}", "broken", str(error), fix)


def _keras() -> Iterator[Finding]:
    backend = keras.backend.backend()
    if backend == "tensorflow":
        yield Finding("keras backend", "ok", backend)
    else:
        yield Finding("keras backend", "broken", backend, "export KERAS_BACKEND=tensorflow")
    if os.environ.get("TF_USE_LEGACY_KERAS", "0").lower() in ("1", "true"):
        detail = "set: `tf.keras` is Keras 2 in this process and its children, whose models Keras 3 rejects"
        yield Finding("TF_USE_LEGACY_KERAS", "warning", detail, "unset TF_USE_LEGACY_KERAS")
    if tf.keras.__version__.startswith("2."):
        detail = f"Keras {tf.keras.__version__}: tfmot came before Keras, or TF_USE_LEGACY_KERAS is set"
        yield Finding("tf.keras", "broken", detail, "import keras before tensorflow_model_optimization")
    if keras.config.image_data_format() != "channels_last":
        fix = 'set "image_data_format": "channels_last" in ~/.keras/keras.json'
        yield Finding("image_data_format", "broken", keras.config.image_data_format(), fix)
    if keras.config.floatx() != "float32":
        fix = 'set "floatx": "float32" in ~/.keras/keras.json; use a dtype policy for mixed precision'
        yield Finding("floatx", "warning", keras.config.floatx(), fix)


def _devices() -> Iterator[Finding]:
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        details = tf.config.experimental.get_device_details(gpu)
        capability = details.get("compute_capability", (0, 0))
        native = "native" if capability >= (8, 0) else "no native"
        yield Finding(gpu.name, "ok", f"{details.get('device_name', 'GPU')}, {native} bfloat16")
    if not gpus and shutil.which("nvidia-smi"):
        detail = "there is an NVIDIA driver, but TensorFlow sees no GPU"
        yield Finding("GPU", "warning", detail, 'pip install "tfopt[gpu]" and unset CUDA_VISIBLE_DEVICES')
    flags = _read("/proc/cpuinfo").split()
    native = "native" if {"avx512_bf16", "amx_bf16"} & set(flags) else "no native"
    yield Finding("CPU", "ok", f"{os.cpu_count()} logical, {native} bfloat16")


def _threads() -> Iterator[Finding]:
    """TensorFlow starts a thread per visible core, also where a container may use fewer."""
    seen, allowed = os.cpu_count() or 1, usable_cpus()
    if allowed < seen:
        detail = f"TensorFlow starts {seen} threads, but this process may use {allowed:g} cores"
        fix = f"export TF_NUM_INTRAOP_THREADS={max(1, round(allowed))}"
        set_already = "TF_NUM_INTRAOP_THREADS" in os.environ
        yield Finding("threads", "ok" if set_already else "warning", detail, "" if set_already else fix)
    else:
        yield Finding("threads", "ok", f"{seen} cores, all usable")


def usable_cpus() -> float:
    """Cores this process may use: its affinity, or the container's quota if that is less."""
    affinity = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        return min(affinity, int(quota[0]) / int(quota[1]))
    return float(affinity)


def _memory() -> Iterator[Finding]:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable"):
            available = int(line.split()[1]) * 1024
            fix = "close other programs or use a smaller batch size" if available < _LOW_MEMORY else ""
            yield Finding("memory", "warning" if fix else "ok", f"{available / 1e9:.1f} GB available", fix)


def _folders() -> Iterator[Finding]:
    home = pathlib.Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    yield from _folder("weights cache", home)
    yield from _folder("measurements cache", cache_folder())
    yield from _folder("working folder", pathlib.Path.cwd())
    yield from _folder("temporary folder", pathlib.Path(tempfile.gettempdir()))


def _folder(subject: str, folder: pathlib.Path) -> Iterator[Finding]:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        fix = f"make {existing} writable, or choose another (KERAS_HOME, XDG_CACHE_HOME, TMPDIR)"
        yield Finding(subject, "broken", f"{existing}: {error.strerror}", fix)
        return
    status: Literal["ok", "warning", "broken"] = "ok"
    if free < _LOW_DISK:
        status = "broken" if free < _NO_DISK else "warning"
    fix = "" if status == "ok" else "free some space or choose another folder"
    yield Finding(subject, status, f"{folder}, {free / 1e9:.1f} GB free", fix)


def _read(path: str) -> str:
    """The text of a file of the system, empty where there is none (not Linux)."""
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return ""


_CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _compiled,
    _keras,
    _devices,
    _threads,
    _memory,
    _folders,
)
