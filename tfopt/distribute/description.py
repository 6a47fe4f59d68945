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
        workers: Processes that train in step.
        worker: Which of them this is, from 0 (the chief).
        devices: The devices of this process.
        precision: Keras's dtype policy.
        threads: Threads inside one op; 0 means that TensorFlow decides.
    """

    strategy: str
    replicas: int
    workers: int
    worker: int
    devices: tuple[str, ...]
    precision: str
    threads: int

    def __str__(self) -> str:
        replicas = "1 replica" if self.replicas == 1 else f"{self.replicas} replicas"
        worker = f", worker {self.worker} of {self.workers}" if self.workers > 1 else ""
        threads = f", {self.threads} threads" if self.threads else ""
        return f"{self.strategy}, {replicas} on {', '.join(self.devices)}{worker}, {self.precision}{threads}"


def describe(strategy: tf.distribute.Strategy) -> StrategyDescription:
    """Says what holds under a strategy: replicas, devices, precision, threads.

    Args:
        strategy: Any `tf.distribute.Strategy`, not only one from `make_strategy`.

    Example:

    >>> print(tfopt.distribute.describe(strategy))
    MirroredStrategy, 2 replicas on CPU:0, CPU:1, float32
    """
    return StrategyDescription(
        strategy=_name(strategy),
        replicas=strategy.num_replicas_in_sync,
        workers=_workers(strategy),
        worker=worker_index(strategy),
        devices=_devices(strategy),
        precision=keras.config.dtype_policy().name,
        threads=tf.config.threading.get_intra_op_parallelism_threads(),
    )


def worker_index(strategy: tf.distribute.Strategy | None = None) -> int:
    """This process's place among the workers, from 0; 0 as well if there is only one.

    Args:
        strategy: None for the strategy of the current scope.
    """
    resolver = (strategy or tf.distribute.get_strategy()).cluster_resolver
    return int(resolver.task_id or 0) if resolver is not None else 0


def is_chief(strategy: tf.distribute.Strategy | None = None) -> bool:
    """Whether this process is the one that writes files: worker 0, or the only one.

    Use it around what must happen once; never around anything in which all workers take part (`fit`,
    `evaluate`, reading a metric), for the others would wait forever.

    Args:
        strategy: None for the strategy of the current scope.

    Example:

    >>> if tfopt.distribute.is_chief(strategy):
    ...     model.save("model.keras")
    """
    return worker_index(strategy) == 0


def _name(strategy: tf.distribute.Strategy) -> str:
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return "MultiWorkerMirroredStrategy"  # its class has an older name
    return type(strategy).__name__.removeprefix("_")


def _workers(strategy: tf.distribute.Strategy) -> int:
    resolver = strategy.cluster_resolver
    return max(1, sum(map(len, resolver.cluster_spec().as_dict().values()))) if resolver is not None else 1


def _devices(strategy: tf.distribute.Strategy) -> tuple[str, ...]:
    try:
        specs = [tf.DeviceSpec.from_string(name) for name in strategy.extended.worker_devices]
    except RuntimeError:  # the default strategy does not say: it leaves the choice to TensorFlow
        return ("GPU:0" if tf.config.get_visible_devices("GPU") else "CPU:0",)
    return tuple(f"{spec.device_type}:{spec.device_index}" for spec in specs)
