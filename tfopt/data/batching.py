"""Batches whose size follows a schedule of samples seen: one finite stream for the whole run.

`fit` cannot learn that an epoch has another number of batches than the last, so a ramp that lives in the
data must not be cut at epochs: the stream covers all of them and an epoch is a share of its updates. If
an epoch must be one pass over the data, ramp by accumulation (`tfopt.callbacks.BatchSizeRamp`) instead.
"""

from typing import Any

import tensorflow as tf

from tfopt._checks import check_instance, check_integer, message
from tfopt.schedules import BatchSizeSchedule


def ramped_batches(
    dataset: tf.data.Dataset, schedule: BatchSizeSchedule, *, epochs: int = 1
) -> tf.data.Dataset:
    """Repeats a dataset for a whole run and batches it by a schedule, in the order of the dataset.

    Every example is delivered exactly `epochs` times and the number of batches is asserted.

    Args:
        dataset: Unbatched, finite, of known cardinality (`tf.data.experimental.assert_cardinality`).
            It is iterated once for each epoch, so `dataset.shuffle(...)` changes its order by epoch.
        schedule: Batch size as a function of samples seen, from `tfopt.schedules`. With XLA each size
            compiles once, so choose few.
        epochs: Number of passes, >= 1.

    Returns:
        A `tf.data.Dataset` of `schedule.total_steps(examples * epochs)` batches, with an attribute
        `steps_per_epoch`: the updates of one epoch of `fit`, rounded up; the last one is shorter if the
        updates do not divide.

    Raises:
        ValueError: If the number of examples is unknown or infinite, or a size above that of all epochs.

    Example:
        >>> ramp = tfopt.schedules.GeometricRamp(8, 32, ramp_samples=600)
        >>> batches = tfopt.data.ramped_batches(dataset, ramp, epochs=3)
        >>> model.fit(batches, epochs=3, steps_per_epoch=batches.steps_per_epoch)

    Differs from `dataset.batch(variable)`, which reads the size once, and from
    `dataset.rejection_resample` and other streams of unknown length, for which `fit` stops counting.
    """
    check_instance("schedule", schedule, BatchSizeSchedule)
    check_integer("epochs", epochs, minimum=1)
    count = int(dataset.cardinality())
    if count < 0:
        fix = "Apply `tf.data.experimental.assert_cardinality(examples)` to it."
        raise ValueError(message("dataset", "of known, finite cardinality", count, fix))
    schedule.check_sizes(samples=count * epochs)
    batches = batch_by_schedule(dataset.repeat(epochs), schedule).prefetch(tf.data.AUTOTUNE)
    return with_steps_per_epoch(batches, schedule.total_steps(count * epochs), epochs)


def batch_by_schedule(dataset: tf.data.Dataset, schedule: BatchSizeSchedule) -> tf.data.Dataset:
    """Batches a finite unbatched dataset; every phase of the schedule closes on a whole batch."""
    largest = int(schedule.sizes.max())

    def batch(_: tf.Tensor, window: tf.data.Dataset) -> tf.data.Dataset:
        return window.map(lambda _, example: example).batch(largest)

    def first(place: tf.Tensor, *_: Any) -> tf.Tensor:
        return schedule(place)

    examples = dataset.map(lambda *example: example if len(example) > 1 else example[0])
    return examples.enumerate().group_by_window(first, batch, window_size_func=lambda size: size)


def with_steps_per_epoch(batches: tf.data.Dataset, total: int, epochs: int) -> tf.data.Dataset:
    """Asserts the number of batches and notes how many make an epoch."""
    batches = batches.apply(tf.data.experimental.assert_cardinality(total))
    batches.steps_per_epoch = -(-total // epochs)
    return batches
