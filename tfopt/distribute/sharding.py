"""`sharded`: every worker reads its own part of the data, and all of them check that nothing is lost."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfopt._checks import check_integer

MakeBatches = Callable[[int, tuple[int, int]], tf.data.Dataset]


def sharded(
    strategy: tf.distribute.Strategy, make: MakeBatches, batch_size: int
) -> tf.distribute.DistributedDataset:
    """Batches for `fit` of which each worker prepares its own share only.

    `model.fit(tfopt.data.pipeline(...))` works under every strategy, but with W workers each of them
    decodes and augments everything and throws all but 1/W away. This reads, decodes and augments each
    image once in all. The global batches are the same, bit for bit, and depend on (seed, epoch) only.

    At the start the workers compare what they are about to read: an error says if their data, seeds or
    batch sizes differ, or if an example belongs to two workers or to none.

    Args:
        strategy: What the model trains under.
        make: Called with (batch size of one replica, shard); returns `tfopt.data.pipeline(...)`.
        batch_size: Examples of one update, over all replicas; a multiple of their number.

    Returns:
        A distributed dataset with a `position`, counted in global batches; `Resume(data=...)` takes it.

    Raises:
        ValueError: If `batch_size` does not divide, or the check fails.

    Example:

    >>> batches = tfopt.distribute.sharded(
    ...     strategy, lambda size, shard: tfopt.data.pipeline(data.train, size, shard=shard), batch_size=256
    ... )
    >>> model.fit(batches, epochs=10)
    """
    replicas = strategy.num_replicas_in_sync
    check_integer("batch_size", batch_size, minimum=1)
    if batch_size % replicas:
        raise ValueError(
            f"`batch_size` must be a multiple of the {replicas} replicas. Received: {batch_size}."
        )
    pipelines: list[tf.data.Dataset] = []

    def make_one(context: tf.distribute.InputContext) -> tf.data.Dataset:
        shard = (context.input_pipeline_id, context.num_input_pipelines)
        pipelines.append(make(batch_size // replicas, shard))
        return pipelines[-1]

    batches = strategy.distribute_datasets_from_function(make_one)
    if len(pipelines) != 1:
        raise ValueError(
            f"`sharded` needs one input pipeline per process. {type(strategy).__name__} has more."
        )
    try:
        sampler, position = pipelines[0].sampler, pipelines[0].position
    except AttributeError as error:
        raise TypeError("`make` must return `tfopt.data.pipeline(...)` without `epochs`.") from error
    _check_union(strategy, sampler)
    batches.position = _Position(position, _local_replicas(strategy))
    if strategy.num_replicas_in_sync > 1:
        # Counted in elements, of which a step takes one per local replica: `fit` would wait for more.
        batches._cardinality = sampler.batches // _local_replicas(strategy)
    return batches


class _Position:
    """The position of a pipeline from which each local replica takes a batch at every step."""

    def __init__(self, position: Any, replicas: int) -> None:
        self._position, self._replicas = position, replicas

    def set(self, epoch: int, batch: int = 0) -> None:
        """Makes the next iteration begin at a global batch of an epoch."""
        self._position.set(epoch, batch * self._replicas)


def _check_union(strategy: tf.distribute.Strategy, sampler: Any) -> None:
    """All workers together: the same settings, and no example twice or, but for a remainder, left out."""
    own = [sampler.count, sampler.batches, sampler.batch_size, sampler.seed, int(sampler.shuffle)]
    settings = over_workers(strategy, tf.constant([own], tf.int64))
    for index, other in enumerate(settings.tolist()):
        if other != own:
            raise ValueError(
                f"Worker {index} reads other data than this one: (examples, batches, batch size, seed, "
                f"shuffle) are {tuple(other)} there and {tuple(own)} here."
            )
    places = tf.range(sampler.length, dtype=tf.int64)
    indices = tf.vectorized_map(lambda place: sampler.index(place, tf.constant(0, tf.int64)), places)
    different = len(np.unique(over_workers(strategy, indices)))
    if different != sampler.length * len(settings):
        raise ValueError(
            f"All workers together read {different} different examples in an epoch and not "
            f"{sampler.length * len(settings)}. Pass the `shard` that `make` is given on to the pipeline."
        )


def over_workers(strategy: tf.distribute.Strategy, rows: tf.Tensor) -> np.ndarray:
    """The rows of all workers, one after the other."""

    def once(context: Any) -> tf.Tensor:
        return rows if context.replica_id_in_sync_group % _local_replicas(strategy) == 0 else rows[:0]

    return strategy.gather(strategy.experimental_distribute_values_from_function(once), axis=0).numpy()


def _local_replicas(strategy: tf.distribute.Strategy) -> int:
    return len(strategy.extended.worker_devices) if strategy.num_replicas_in_sync > 1 else 1
