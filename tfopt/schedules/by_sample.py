"""A learning-rate schedule whose clock is samples seen instead of updates."""

from typing import Any

import keras
import tensorflow as tf

from tfopt._checks import check_instance
from tfopt.schedules._schedule import KerasSchedule, Schedule, rate_at
from tfopt.schedules.batch_size import as_batch_size_schedule


@keras.saving.register_keras_serializable(package="tfopt")
class BySample(Schedule):
    """Reads another schedule in samples seen, so that it means the same under any batch sizes.

    Use it when the batch size changes during the run, or to compare runs with different sizes. It is
    still a pure function of the update, because the samples seen after an update are a closed form.

    Args:
        schedule: A Keras schedule whose "steps" are samples.
        batch_size_schedule: What the data or `GradientAccumulation` use; or a constant batch size.

    Example:
        >>> ramp = tfopt.schedules.GeometricRamp(16, 128, ramp_samples=30_000)
        >>> cosine = keras.optimizers.schedules.CosineDecay(1e-3, decay_steps=60_000)
        >>> optimizer = keras.optimizers.Adam(tfopt.schedules.BySample(cosine, ramp))
    """

    def __init__(self, schedule: KerasSchedule, batch_size_schedule: Any) -> None:
        self.schedule = check_instance("schedule", schedule, KerasSchedule)
        self.batch_size_schedule = as_batch_size_schedule(batch_size_schedule)

    def rate(self, step: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return rate_at(self.schedule, self.batch_size_schedule.samples_seen(step))
