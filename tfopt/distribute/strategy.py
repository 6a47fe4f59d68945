"""`make_strategy`: one line that picks the `tf.distribute` strategy for the machine, and says why."""

import logging
import os
from collections.abc import Sequence

import tensorflow as tf

from tfopt._checks import check_choice, check_number
from tfopt.distribute import _build, multiworker, replicas
from tfopt.distribute import devices as hardware
from tfopt.distribute.cluster import NO_PARAMETER_SERVER, read_cluster
from tfopt.distribute.description import describe
from tfopt.distribute.precision import POLICIES, set_precision

_logger = logging.getLogger(__name__)

NAMES = ("auto", "cpu", "gpu", "mirrored", "multiworker", "tpu")


def make_strategy(
    name: str = "auto",
    *,
    precision: str | None = None,
    devices: int | Sequence[str] | None = None,
    memory_growth: bool | None = None,
    threads: int | None = None,
    connect_seconds: float = 120.0,
) -> tf.distribute.Strategy:
    """Returns the `tf.distribute` strategy that suits this machine, and logs what it chose and why.

    Call it first, before any tensor, model or dataset is made, and build and compile the model inside
    its `scope()`. On one CPU or one GPU it returns TensorFlow's default strategy, under which Keras is as
    fast as without any, so a script can always use it. Nothing but the strategy changes unless asked for.

    Args:
        name: "auto" takes the first that is there: a TPU, the workers that TF_CONFIG names, the tasks of
            a Slurm step, several GPUs, one GPU, the CPU. Or "cpu", "gpu" (one), "mirrored" (several
            devices of this machine, each with a copy of the model), "multiworker", "tpu".
        precision: None leaves Keras's dtype policy as it is. "auto" picks bfloat16 or float16 where the
            device has it and float32 elsewhere; or "float32", "mixed_bfloat16", "mixed_float16".
        devices: Which devices: a number, or names such as `["GPU:0", "GPU:2"]`. A number of devices on a
            machine without GPUs makes as many logical CPUs, which is how to try "mirrored" on a laptop.
        memory_growth: True lets GPUs allocate memory as needed instead of all at once. None: unchanged.
        threads: Threads inside one op and between ops. None: unchanged.
        connect_seconds: How long to wait for the other workers.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: For an unknown name, a device that this machine does not have, or a malformed
            TF_CONFIG or Slurm variable.
        RuntimeError: If a setting needs TensorFlow not to have started yet, or a TPU does not start.
        TimeoutError: If a worker cannot be reached; names its address.

    Example:

    >>> strategy = tfopt.distribute.make_strategy()
    >>> with strategy.scope():
    ...     model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    ...     model.compile("adam", "mse")
    >>> print(tfopt.distribute.describe(strategy))

    On several replicas it also mends Keras, for the process, where a self-test or the table in
    docs/distribution.md says so: `fit` with several workers, batch-norm statistics that differ between
    replicas, seeds that do not, and float16 overflow that only one replica sees. `restore_keras()` takes that
    back.

    Differs from `tf.distribute.MirroredStrategy()` and its siblings, of which you choose one yourself and
    which slow a single device down.
    """
    check_choice("name", name, NAMES, fix=NO_PARAMETER_SERVER if "server" in str(name) else "")
    check_choice("precision", precision, (None, "auto", *POLICIES))
    check_number("connect_seconds", connect_seconds, minimum=0.0)
    if tf.distribute.has_strategy():
        raise RuntimeError("`make_strategy` was called inside the scope of another strategy. Call it before.")
    if threads is not None:
        hardware.set_threads(threads)
    if memory_growth is not None:
        hardware.set_memory_growth(memory_growth)
    names = hardware.check_devices(devices)
    chosen, reason = _choose(name, names)
    make = {
        "cpu": lambda: _build.one_device("CPU", names),
        "gpu": lambda: _build.one_device("GPU", names),
        "mirrored": lambda: _build.mirrored(names),
        "multiworker": lambda: _build.several_workers(names, connect_seconds),
        "tpu": _build.tpu,
    }
    strategy = make[chosen]()
    set_precision(precision, _kind(chosen, names))
    _logger.info("%s. Chosen because %s.", describe(strategy), reason)
    return strategy


def restore_keras() -> None:
    """Takes back what `make_strategy` mends in Keras; the next `make_strategy` mends it again."""
    multiworker.restore()
    replicas.restore()


def _choose(name: str, devices: list[str] | None) -> tuple[str, str]:
    """The strategy's name and the reason, in words that complete "chosen because"."""
    if name != "auto":
        return name, f"name={name!r} was given"
    if devices is None and _build.has_tpu():
        return "tpu", "there is a TPU"
    cluster = read_cluster(os.environ)
    if cluster is not None:
        return "multiworker", f"{cluster.source} names {len(cluster.workers)} workers"
    if devices is not None:
        if len(devices) > 1:
            return "mirrored", f"{len(devices)} devices were given"
        return devices[0][:3].lower(), f"the device {devices[0]} was given"
    gpus = hardware.count("GPU")
    if gpus > 1:
        return "mirrored", f"{gpus} GPUs are visible"
    return ("gpu", "one GPU is visible") if gpus else ("cpu", "no GPU is visible")


def _kind(name: str, devices: list[str] | None) -> str:
    if name in ("cpu", "tpu"):
        return name.upper()
    names = devices or ["GPU:0" if hardware.count("GPU") else "CPU:0"]
    return names[0].split(":")[0]
