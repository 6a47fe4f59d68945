"""Maps (position, epoch) to an example index, and tracks where a pipeline is in the run."""

from typing import final

import tensorflow as tf

from tfopt._checks import check_integer, message


@final
class Position:
    """The epoch and batch at which the next iteration over a pipeline starts.

    They are variables, read when an iteration starts, so setting them changes pipelines that exist already.

    Attributes:
        epoch: int64 variable, the number of the next epoch.
        batch: int64 variable, the first batch of that epoch to read; earlier batches are zeros.
    """

    def __init__(self, epoch: int = 0) -> None:
        with tf.init_scope(), tf.device("CPU:0"):
            self.epoch = tf.Variable(epoch, dtype=tf.int64, trainable=False)
            self.batch = tf.Variable(0, dtype=tf.int64, trainable=False)

    def set(self, epoch: int, batch: int = 0) -> None:
        """Starts the next iteration at this batch of this epoch."""
        self.epoch.assign(check_integer("epoch", epoch, minimum=0))
        self.batch.assign(check_integer("batch", batch, minimum=0))

    def take(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns (epoch, batch) and advances to the start of the next epoch. Call it in a tf.function."""
        epoch, batch = self.epoch.read_value(), self.batch.read_value()
        with tf.control_dependencies([epoch, batch]):
            moved = [self.epoch.assign_add(1), self.batch.assign(0)]
        with tf.control_dependencies(moved):
            return tf.identity(epoch), tf.identity(batch)


@final
class Sampler:
    """The order in which one worker reads the examples of each epoch: its share of a permutation.

    Args:
        count: Number of examples.
        batch_size: Images per batch of this worker.
        shuffle: Whether the order changes with the epoch.
        seed: Integer >= 0.
        drop_remainder: Leave out a last batch that is not full.
        shard: (index of this worker, number of workers). With several workers, the examples that do not
            fill a global batch are left out, so that all workers make the same number of updates.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        shuffle: bool,
        seed: int,
        drop_remainder: bool,
        shard: tuple[int, int],
    ) -> None:
        self.worker, self.workers = shard
        check_integer("shard[1]", self.workers, minimum=1)
        check_integer("shard[0]", self.worker, minimum=0, maximum=self.workers - 1)
        self.count, self.batch_size, self.shuffle, self.seed = count, batch_size, shuffle, seed
        whole = count // (batch_size * self.workers)
        self.drop_remainder = drop_remainder or self.workers > 1
        self.batches = whole if self.drop_remainder else -(-count // batch_size)
        self.length = whole * batch_size if self.drop_remainder else count
        if self.batches == 0:
            fix = "With drop_remainder or several workers, a batch must be full."
            raise ValueError(message("batch_size", f"at most {count // self.workers}", batch_size, fix))

    def is_mine(self, place: tf.Tensor) -> tf.Tensor:
        """Whether the example at `place`, counted over all workers, belongs to this worker."""
        return place // self.batch_size % self.workers == self.worker

    def index(self, place: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """Index of the example that this worker reads at `place` of its share of an epoch."""
        batch, row = place // self.batch_size, place % self.batch_size
        place = (batch * self.workers + self.worker) * self.batch_size + row
        if not self.shuffle or self.count == 1:
            return place
        seed = tf.stack([tf.constant(self.seed % 2**63, tf.int64), epoch])
        return tf.random.experimental.index_shuffle(place, seed, tf.constant(self.count - 1, tf.int64))
