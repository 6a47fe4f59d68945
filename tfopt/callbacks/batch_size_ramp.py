"""Logs the batch size of a ramp and lets the learning rate follow it."""

from typing import Any

from tfopt._checks import check_choice, check_instance, message
from tfopt._optimizers_in_use import optimizers_in_use
from tfopt.callbacks._coupling import accumulation_in, couple, power_of
from tfopt.callbacks._rate import Progress, learning_rates, rates_of, updates_made
from tfopt.callbacks._state import StatefulCallback
from tfopt.schedules import BatchSizeSchedule

_OWNER = "BatchSizeRamp"


class BatchSizeRamp(StatefulCallback):
    """Goes with a batch size that grows during the run: logs it, and scales the learning rate by it.

    The same schedule makes the batches, in one of two ways:

        tfopt.data.pipeline(..., schedule, epochs=E), ramped_batches    the batches themselves grow
        GradientAccumulation(optimizer, schedule, micro_batch_size)     the memory stays the same

    Leave the rate alone (None) if the growth replaces a decay of the rate: both lower the noise of the
    gradient. Scale it if the ramp is a warm-up of the batch size. The factor is 1 at the first size:

        rate = rate of the optimizer or schedule * (size / first size)^power
        velocity = velocity * new rate / old rate      at a change, of SGD, LARS and RMSprop

    The clock is the optimizer's count of updates, so `initial_epoch`, a second `fit` and `Resume` go on
    where the ramp was. Like `LearningRateDecay` it acts once per execution of several steps. A `.keras`
    file written within a ramp holds the scaled rate; go on from it by `Resume`, or without scaling.

    In a model with several optimizers (a GAN, a `MultiOptimizer`) all rates follow, and the clock is the
    count that they share; if they make different numbers of updates, `clock` says whose counts batches.

    Logs: `batch_size` of the last update, per batch and per epoch; `learning_rate` per epoch.

    Args:
        schedule: A batch-size schedule of `tfopt.schedules`.
        scale_learning_rate: None, "linear" (power 1), "sqrt" (power 1/2), or "auto": linear for SGD, LARS
            and Schedule-Free SGD, sqrt for optimizers that divide the gradient by its size.
        momentum_correction: Whether velocities that hold the rate follow its jumps.
        clock: Name of the optimizer that makes one update per batch, if the model has several that differ.

    Raises:
        ValueError: When training begins, if the replicas cannot share a size equally, or
            `GradientAccumulation` has another schedule; after an epoch, if the optimizers count different
            updates, or those that were found have not trained the model.

    Example:
        >>> ramp = tfopt.schedules.GeometricRamp(2, 8, ramp_samples=16)
        >>> data = tf.data.Dataset.from_tensor_slices((np.ones((24, 4)), np.ones(24)))
        >>> batches = tfopt.data.ramped_batches(data, ramp, epochs=3)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(0.01), "mse")
        >>> history = model.fit(batches, epochs=3, steps_per_epoch=batches.steps_per_epoch, verbose=0,
        ...                     callbacks=[tfopt.callbacks.BatchSizeRamp(ramp, "auto")])
        >>> history.history["batch_size"]
        [4, 8, 8]

    References:
        Smith et al., "Don't Decay the Learning Rate, Increase the Batch Size", 2017, arXiv:1711.00489.
        Goyal et al., "Accurate, Large Minibatch SGD", 2017, arXiv:1706.02677 (linear, momentum).
        Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", 2022,
        arXiv:2205.10287 (square root).
    """

    def __init__(
        self,
        schedule: BatchSizeSchedule,
        scale_learning_rate: str | None = None,
        *,
        momentum_correction: bool = True,
        clock: str | None = None,
    ) -> None:
        super().__init__()
        self.schedule = check_instance("schedule", schedule, BatchSizeSchedule)
        choices = (None, "linear", "sqrt", "auto")
        self.scale_learning_rate = check_choice("scale_learning_rate", scale_learning_rate, choices)
        self.momentum_correction = bool(momentum_correction)
        self.clock = None if clock is None else check_instance("clock", clock, str)
        self._size = self._used = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Checks the schedule against replicas and optimizers."""
        self.schedule.check_sizes(replicas=self.model.distribute_strategy.num_replicas_in_sync)
        self._rates, in_use = rates_of(self.model), optimizers_in_use(self.model)
        for optimizer in in_use.values():
            accumulation, _ = accumulation_in(optimizer)
            steps = None if accumulation is None else accumulation.steps
            if isinstance(steps, BatchSizeSchedule) and _phases(steps) != _phases(self.schedule):
                expected = "the schedule of `GradientAccumulation`"
                raise ValueError(message("schedule", expected, _phases(self.schedule)))
        if self.clock is not None and self.clock not in in_use:
            raise ValueError(message("clock", f"one of {sorted(in_use)}", self.clock))
        self._clocks = in_use if self.clock is None else {self.clock: in_use[self.clock]}
        self._progress = Progress(self, self.model)
        self._size = self._used = 0
        self._powers = {
            name: power_of(self.scale_learning_rate, rate.optimizer) for name, rate in self._rates.items()
        }
        for name, rate in self._rates.items():
            if self._powers[name]:
                rate.prepare(self.model)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Scales the rate for the next update."""
        updates = max(map(updates_made, self._clocks.values()))
        size = self.schedule(self.schedule.samples_seen(updates))
        if size != self._size:
            for name, rate in self._rates.items():
                if self._powers[name]:
                    factor = (size / self.schedule(0)) ** self._powers[name]
                    couple(rate, _OWNER, factor, self.momentum_correction)
        self._size = size

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Logs what the update used; a batch that begins need not come, where the data ends."""
        self._used = self._size
        if logs is not None:
            logs["batch_size"] = self._used

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs the size of the last update, and the rate unless another callback has."""
        self._progress.check()
        counts = {name: updates_made(optimizer) for name, optimizer in self._clocks.items()}
        if len(set(counts.values())) > 1:
            fix = "Name the one that makes one update per batch."
            raise ValueError(
                message("clock", f"given, as the optimizers count {counts} updates", self.clock, fix)
            )
        if logs is not None:
            logs["batch_size"] = self._used
            for name, value in learning_rates(self._rates).items():
                logs.setdefault(name, value)

    def get_state(self) -> dict[str, Any]:
        """Sizes, and the factor of each rate."""
        factors = [rate.factor(_OWNER) for rate in self._rates.values()]
        return {"size": self._size, "used": self._used, "factors": factors}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores them."""
        self._size, self._used = state["size"], state["used"]
        for rate, factor in zip(self._rates.values(), state["factors"]):
            rate.restore_factor(_OWNER, factor)


def _phases(schedule: BatchSizeSchedule) -> dict[int, int]:
    return dict(zip(schedule.first_samples.tolist(), schedule.sizes.tolist()))
