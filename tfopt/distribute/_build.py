"""Makes each kind of strategy, and turns TensorFlow's failures into errors that say what to do."""

import atexit
import logging
import os
import sys

import tensorflow as tf

from tfopt._checks import message
from tfopt.distribute import devices as hardware
from tfopt.distribute import multiworker, replicas
from tfopt.distribute.cluster import Cluster, read_cluster, wait_for_peers


def one_device(kind: str, names: list[str] | None) -> tf.distribute.Strategy:
    """The strategy for one "CPU" or "GPU"."""
    if kind == "GPU":
        hardware.require_gpu()
    device = f"{kind}:0" if names is None else names[0]
    if names is not None and (len(names) > 1 or not device.startswith(kind)):
        raise ValueError(message("devices", f"one {kind} for this name", names, 'Or use name="auto".'))
    # Where TensorFlow would place ops anyway, its default strategy costs nothing; any other one switches
    # XLA off in Keras and more than doubles the overhead of a step.
    default = "GPU:0" if hardware.count("GPU") else "CPU:0"
    return tf.distribute.get_strategy() if device == default else tf.distribute.OneDeviceStrategy(device)


def mirrored(names: list[str] | None) -> tf.distribute.Strategy:
    """The strategy for several devices of this machine."""
    if names is None and hardware.count("GPU") == 0:
        raise ValueError(
            '`name="mirrored"` needs several devices, and TensorFlow sees no GPU. Use "auto", or '
            "`devices=2` to split this CPU into two logical devices."
        )
    return _mended(tf.distribute.MirroredStrategy(names))


def several_workers(names: list[str] | None, connect_seconds: float) -> tf.distribute.Strategy:
    """The strategy for the cluster that the environment describes."""
    cluster = read_cluster(os.environ)
    if cluster is None:
        raise ValueError(
            '`name="multiworker"` needs TF_CONFIG or Slurm variables that name at least two workers, and '
            "there are none. Start the script with `tfopt launch -n 2 script.py`, or with `srun`."
        )
    if names is not None:
        hardware.show_only(names)
    elif cluster.source == "Slurm" and "SLURM_GPUS_PER_TASK" not in os.environ:
        hardware.show_only(_share(cluster))
    wait_for_peers(cluster, connect_seconds)
    atexit.register(_leave_after_an_error)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.workers)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
    )
    try:
        return _mended(tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=resolver))
    except RuntimeError as error:
        raise hardware.already_started('name="multiworker"') from error


def _leave_after_an_error() -> None:
    """Ends a worker that failed: TensorFlow would take leave of its peers first, for 7 s if one is silent."""
    if isinstance(getattr(sys, "last_value", None), tf.errors.OpError):  # of the error that ended the script
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def has_tpu() -> bool:
    """Whether the environment names a TPU or this machine has one."""
    return bool(os.environ.get("TPU_NAME") or tf.config.list_physical_devices("TPU"))


def tpu() -> tf.distribute.Strategy:
    """The strategy for the TPU that TPU_NAME names, or for this machine's own."""
    name = os.environ.get("TPU_NAME") or "local"
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return _mended(tf.distribute.TPUStrategy(resolver))
    except (ValueError, RuntimeError, ImportError, OSError, tf.errors.OpError) as error:
        raise RuntimeError(
            f"The TPU {name!r} could not be initialized: {str(error).splitlines()[0]} On a TPU VM, check "
            "that `libtpu` is installed and that no other process holds the TPU; elsewhere, check or unset "
            'TPU_NAME. `make_strategy("cpu")` trains without one.'
        ) from error


def _share(cluster: Cluster) -> list[str]:
    """This worker's part of the GPUs, if the workers of a machine all see all of them."""
    gpus = [f"GPU:{index}" for index in range(hardware.count("GPU"))]
    return gpus[cluster.local_index :: cluster.local_workers] if len(gpus) >= cluster.local_workers else gpus


def _mended(strategy: tf.distribute.Strategy) -> tf.distribute.Strategy:
    if strategy.num_replicas_in_sync > 1:
        multiworker.mend(strategy)
        replicas.mend()
    return strategy
