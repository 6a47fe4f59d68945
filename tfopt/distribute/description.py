"""What holds under a strategy, in one line for logs and as fields for reports."""

import dataclasses

import keras
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class StrategyDescription:
    """What `describe` returns; `str()` of it is one line for a log.

    Attributes:
        strategy: Name of the class.
        replicas: Copies of the model that train in step, over all workers.
        devices: The devices of this process.
        precision: Keras's dtype policy.
        threads: Threads inside one op; 0 means that TensorFlow decides.
    """

    strategy: str
    replicas: int
    devices: tuple[str, ...]
    precision: str
    threads: int

    def __str__(self) -> str:
        replicas = "1 replica" if self.replicas == 1 else f"{self.replicas} replicas"
        threads = f", {self.threads} threads" if self.threads else ""
        return f"{self.strategy}, {replicas} on {', '.join(self.devices)}, {self.precision}{threads}"


def describe(strategy: tf.distribute.Strategy) -> StrategyDescription:
    """Says what holds under a strategy: replicas, devices, precision, threads.

    Args:
        strategy: Any `tf.distribute.Strategy`, not only one from `make_strategy`.

    Example:

    >>> print(tfopt.distribute.describe(strategy))
    MirroredStrategy, 2 replicas on CPU:0, CPU:1, float32
    """
    return StrategyDescription(
        strategy=type(strategy).__name__.removeprefix("_"),
        replicas=strategy.num_replicas_in_sync,
        devices=_devices(strategy),
        precision=keras.config.dtype_policy().name,
        threads=tf.config.threading.get_intra_op_parallelism_threads(),
    )


def _devices(strategy: tf.distribute.Strategy) -> tuple[str, ...]:
    try:
        specs = [tf.DeviceSpec.from_string(name) for name in strategy.extended.worker_devices]
    except RuntimeError:  # the default strategy does not say: it leaves the choice to TensorFlow
        return ("GPU:0" if tf.config.get_visible_devices("GPU") else "CPU:0",)
    return tuple(f"{spec.device_type}:{spec.device_index}" for spec in specs)
