"""The devices of this machine: counted without starting TensorFlow, and settings that must precede it."""

import re
from collections.abc import Sequence

import tensorflow as tf

from tfopt._checks import check_integer, message

_NAME = re.compile(r"/?(CPU|GPU):(\d+)", re.IGNORECASE)


def count(kind: str) -> int:
    """Visible logical devices of a kind ("CPU", "GPU"). Does not start TensorFlow."""
    configurations = (
        tf.config.get_logical_device_configuration(device) for device in tf.config.get_visible_devices(kind)
    )
    return sum(len(configuration or [None]) for configuration in configurations)


def check_devices(devices: int | Sequence[str] | None) -> list[str] | None:
    """Turns `devices` into existing names such as "GPU:1".

    Args:
        devices: None; a number of devices (GPUs if there are any, otherwise logical CPUs, made on
            demand); or names such as `["GPU:0", "GPU:2"]`.

    Raises:
        ValueError: For a name that is malformed, repeated or not on this machine.
        RuntimeError: If more logical CPUs are needed and TensorFlow already runs.
    """
    if devices is None:
        return None
    if not isinstance(devices, str | Sequence):
        number = check_integer("devices", devices, minimum=1)
        kind = "GPU" if count("GPU") else "CPU"
        devices = [f"{kind}:{index}" for index in range(number)]
    names = [_normalized(name) for name in ([devices] if isinstance(devices, str) else devices)]
    if not names or len(set(names)) < len(names):
        raise ValueError(message("devices", "a non-empty list without repetitions", devices))
    _make_logical_cpus(1 + max((_index(name) for name in names if name.startswith("CPU")), default=0))
    known = {f"{kind}:{index}" for kind in ("CPU", "GPU") for index in range(count(kind))}
    if not known.issuperset(names):
        raise ValueError(message("devices", f"among {', '.join(sorted(known))}", devices, _NO_GPU))
    return names


_NO_GPU = (
    "If a GPU is missing, check `nvidia-smi`, CUDA_VISIBLE_DEVICES and that TensorFlow was installed "
    'with CUDA: pip install "tensorflow[and-cuda]".'
)


def require_gpu() -> None:
    """Raises a ValueError that says how to get a GPU if there is none."""
    if not count("GPU"):
        raise ValueError(f"TensorFlow sees no GPU on this machine. {_NO_GPU}")


def show_only(names: list[str]) -> None:
    """Hides all GPUs but the named ones from TensorFlow."""
    gpus = tf.config.get_visible_devices("GPU")
    wanted = [gpus[_index(name)] for name in names if name.startswith("GPU")]
    if wanted != gpus:
        try:
            tf.config.set_visible_devices(wanted, "GPU")
        except RuntimeError as error:
            raise already_started("devices") from error


def set_threads(threads: int) -> None:
    """Limits the threads inside one op, and between ops, to `threads` each."""
    check_integer("threads", threads, minimum=1)
    settings = tf.config.threading
    if settings.get_intra_op_parallelism_threads() == settings.get_inter_op_parallelism_threads() == threads:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    except RuntimeError as error:
        raise already_started("threads") from error


def have_started() -> bool:
    """Whether TensorFlow runs already and takes no other number of threads."""
    kept = tf.config.threading.get_intra_op_parallelism_threads()
    try:
        for threads in (kept + 1, kept):
            tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:
        return True
    return False


def set_memory_growth(growth: bool) -> None:
    """Lets every GPU allocate memory as it needs it (True) or all of it at once (False)."""
    try:
        for device in tf.config.get_visible_devices("GPU"):
            tf.config.experimental.set_memory_growth(device, growth)
    except (RuntimeError, ValueError) as error:
        raise already_started("memory_growth") from error


def already_started(setting: str) -> RuntimeError:
    """The error for a setting that TensorFlow takes only before its first op."""
    return RuntimeError(
        f"`{setting}` cannot be set: TensorFlow is already initialized. Call `make_strategy` first, "
        "before any tensor, variable, model or dataset is made (imports are fine)."
    )


def _normalized(name: str) -> str:
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        raise ValueError(message("devices", 'a number or names such as "GPU:0" and "CPU:1"', name))
    return f"{match[1].upper()}:{match[2]}"


def _index(name: str) -> int:
    return int(name.split(":")[1])


def _make_logical_cpus(number: int) -> None:
    if number <= count("CPU"):
        return
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * number)
    except RuntimeError as error:
        raise already_started(f"devices={number} logical CPUs") from error
