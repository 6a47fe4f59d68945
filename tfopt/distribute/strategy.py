"""`make_strategy`: one line that picks the `tf.distribute` strategy for the machine, and says why."""

import logging
from collections.abc import Sequence

import tensorflow as tf

from tfopt._checks import check_choice, message
from tfopt.distribute import devices as hardware
from tfopt.distribute.description import describe
from tfopt.distribute.precision import POLICIES, set_precision

logger = logging.getLogger(__name__)

NAMES = ("auto", "cpu", "gpu", "mirrored")


def make_strategy(
    name: str = "auto",
    *,
    precision: str | None = None,
    devices: int | Sequence[str] | None = None,
    memory_growth: bool | None = None,
    threads: int | None = None,
) -> tf.distribute.Strategy:
    """Returns the `tf.distribute` strategy that suits this machine, and logs what it chose and why.

    Call it first, before any tensor, model or dataset is made, and build and compile the model inside
    its `scope()`. On one CPU or one GPU it returns TensorFlow's default strategy, under which Keras is as
    fast as without any, so a script can always use it. Nothing but the strategy changes unless asked for.

    Args:
        name: "auto" (several GPUs, one GPU, or the CPU), "cpu", "gpu" (one), or "mirrored"
            (several devices of this machine, each with a copy of the model).
        precision: None leaves Keras's dtype policy as it is. "auto" picks bfloat16 or float16 where the
            device has it and float32 elsewhere; or "float32", "mixed_bfloat16", "mixed_float16".
        devices: Which devices: a number, or names such as `["GPU:0", "GPU:2"]`. A number of devices on a
            machine without GPUs makes as many logical CPUs, which is how to try "mirrored" on a laptop.
        memory_growth: True lets GPUs allocate memory as needed instead of all at once. None: unchanged.
        threads: Threads inside one op and between ops. None: unchanged.

    Returns:
        A `tf.distribute.Strategy`.

    Raises:
        ValueError: for an unknown name, or a device that this machine does not have.
        RuntimeError: if a setting needs TensorFlow not to have started yet.

    Example:

    >>> strategy = tfopt.distribute.make_strategy()
    >>> with strategy.scope():
    ...     model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    ...     model.compile("adam", "mse")
    >>> print(tfopt.distribute.describe(strategy))

    Differs from `tf.distribute.MirroredStrategy()` and its siblings, of which you choose one yourself and
    which slow a single device down.
    """
    check_choice("name", name, NAMES)
    check_choice("precision", precision, (None, "auto", *POLICIES))
    if tf.distribute.has_strategy():
        raise RuntimeError("`make_strategy` was called inside the scope of another strategy. Call it before.")
    if threads is not None:
        hardware.set_threads(threads)
    if memory_growth is not None:
        hardware.set_memory_growth(memory_growth)
    names = hardware.check_devices(devices)
    chosen, reason = _choose(name, names)
    strategy = _build(chosen, names)
    set_precision(precision, "CPU" if chosen == "cpu" else _kind(names))
    logger.info("%s. Chosen because %s.", describe(strategy), reason)
    return strategy


def _choose(name: str, devices: list[str] | None) -> tuple[str, str]:
    """The strategy's name and the reason, in words that complete "chosen because"."""
    if name != "auto":
        return name, f"name={name!r} was given"
    if devices is not None:
        if len(devices) > 1:
            return "mirrored", f"{len(devices)} devices were given"
        return devices[0][:3].lower(), f"the device {devices[0]} was given"
    gpus = hardware.count("GPU")
    if gpus > 1:
        return "mirrored", f"{gpus} GPUs are visible"
    return ("gpu", "one GPU is visible") if gpus else ("cpu", "no GPU is visible")


def _build(name: str, devices: list[str] | None) -> tf.distribute.Strategy:
    if name == "mirrored":
        if devices is None and hardware.count("GPU") == 0:
            raise ValueError(
                '`name="mirrored"` needs several devices, and TensorFlow sees no GPU. Use "auto", or '
                "`devices=2` to split this CPU into two logical devices."
            )
        return tf.distribute.MirroredStrategy(devices)
    kind = name.upper()
    if kind == "GPU":
        hardware.require_gpu()
    device = f"{kind}:0" if devices is None else devices[0]
    if devices is not None and (len(devices) > 1 or not device.startswith(kind)):
        raise ValueError(message("devices", f'one {kind} for name="{name}"', devices, 'Or use name="auto".'))
    # Where TensorFlow would place ops anyway, its default strategy costs nothing; any other one switches
    # XLA off in Keras and more than doubles the overhead of a step.
    default = "GPU:0" if hardware.count("GPU") else "CPU:0"
    return tf.distribute.get_strategy() if device == default else tf.distribute.OneDeviceStrategy(device)


def _kind(devices: list[str] | None) -> str:
    names = devices or ["GPU:0" if hardware.count("GPU") else "CPU:0"]
    return names[0].split(":")[0]
