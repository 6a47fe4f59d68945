"""The `tf.data` service: other processes, or CPU machines, prepare data for the ones that train."""

import os

import tensorflow as tf

from tfopt.distribute._environment import DATA_SERVICE
from tfopt.distribute.cluster import read_cluster


def prepare_remotely(
    dataset: tf.data.Dataset, name: str = "train", address: str | None = None
) -> tf.data.Dataset:
    """Lets the data workers of a `tf.data` service run this dataset, and yields what they produce.

    Use it when the accelerators wait for the CPUs of their own machine. Not for small data, which crosses
    the network for nothing, and not where the order must be reproducible: elements arrive as they are ready,
    each exactly once over all training workers and data workers as long as no data worker dies. Who gets
    which is open, so workers that train in step must not run out: give `fit` an endless dataset
    (`dataset.repeat()`) and `steps_per_epoch`.

    Args:
        dataset: A dataset that reads files or arrays by itself, batched as it is to arrive. Batches have the
            size of one training worker's share.
        name: The workers that use the same name share one pass over the data. One name for each dataset.
        address: `"host:port"` of the first data worker. None: that of `tfopt launch --data-workers`; without
            one the dataset is returned unchanged, so a script can always call this.

    Raises:
        ValueError: If several workers train and the dataset ends.

    Example:

    >>> dataset = tfopt.distribute.prepare_remotely(dataset)
    >>> model.fit(dataset)
    """
    address = address or os.environ.get(DATA_SERVICE)
    if address is None:
        return dataset
    if read_cluster(os.environ) is not None and dataset.cardinality() != tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "`dataset` must be endless where several workers train in step, since one of them would run out "
            "first. Use `dataset.repeat()`, and `steps_per_epoch` in `fit`."
        )
    options = tf.data.Options()  # the service deals the elements out; nobody may divide them again
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.apply(
        tf.data.experimental.service.distribute(
            tf.data.experimental.service.ShardingPolicy.DYNAMIC, f"grpc://{address}", job_name=name
        )
    ).with_options(options)


def serve_data(address: str, dispatcher: str | None = None) -> None:
    """Prepares data for others, until the process is ended.

    Args:
        address: `"host:port"` under which the others reach this data worker.
        dispatcher: Address of the first data worker, which hands out the work. None: this is the first.

    Example (on each CPU machine):

    ```
    python -c 'import tfopt; tfopt.distribute.serve_data("cpu1:5050")'
    python -c 'import tfopt; tfopt.distribute.serve_data("cpu2:5050", dispatcher="cpu1:5050")'
    ```
    """
    service = tf.data.experimental.service
    host, port = address.rsplit(":", 1)
    dispatch = None
    if dispatcher is None:  # the dispatcher takes the port that is known; its own worker any other
        dispatch = service.DispatchServer(service.DispatcherConfig(port=int(port)))
        dispatcher, port = address, "0"
    config = service.WorkerConfig(dispatcher, worker_address=f"{host}:%port%", port=int(port))
    service.WorkerServer(config).join()
    del dispatch  # lived as long as the worker
