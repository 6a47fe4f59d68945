"""A batch that grows by accumulation as far as the measured noise of the gradient asks for it."""

import math
from typing import Any

from tfopt._checks import check_choice, check_integer
from tfopt.callbacks._coupling import accumulation_in, couple, power_of
from tfopt.callbacks._rate import only_optimizer, rates_of
from tfopt.callbacks._state import StatefulCallback
from tfopt.schedules import BatchSizeSchedule

_OWNER = "NoiseScaleRamp"


class NoiseScaleRamp(StatefulCallback):
    """Raises the steps of `GradientAccumulation` towards the noise scale, at the end of each epoch.

    Use it if no schedule of batch sizes is known, after `GradientNoiseScale` in the list of callbacks. A
    schedule that has worked once is better: it is the same in every run. The batch never shrinks; nothing
    is traced or compiled again, and the memory stays the same. The largest measurement decides, noise
    included, so let the smoothing of `GradientNoiseScale` span an epoch.

        steps = min(noise scale / micro_batch_size, steps * growth, maximum_steps)      if that is more

    Logs: `batch_size`, used in the epoch.

    Args:
        micro_batch_size: Samples per call, the batch size that `fit` gets, >= 1.
        maximum_steps: Largest number of steps, >= 2.
        growth: Largest growth in one epoch, an integer >= 2.
        scale_learning_rate: None, "linear", "sqrt" or "auto", as in `BatchSizeRamp`. None keeps the rate,
            as growth in place of a decay does.
        momentum_correction: As in `BatchSizeRamp`.

    Raises:
        ValueError: When training begins, without a `GradientAccumulation` whose steps are a number; at
            the end of an epoch, without `GradientNoiseScale`.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> optimizer = tfopt.optimizers.GradientAccumulation(keras.optimizers.SGD(0.1), steps=2)
        >>> model.compile(optimizer, "mse")
        >>> x, y = np.random.default_rng(0).normal(size=(2, 64, 4))
        >>> ramp = [tfopt.callbacks.GradientNoiseScale(), tfopt.callbacks.NoiseScaleRamp(4, 16)]
        >>> history = model.fit(x, y[:, :1], batch_size=4, epochs=4, callbacks=ramp, verbose=0)
        >>> history.history["batch_size"][0], history.history["batch_size"][-1] > 8
        (8, True)

    References:
        McCandlish et al., "An Empirical Model of Large-Batch Training", 2018, arXiv:1812.06162.
    """

    def __init__(
        self,
        micro_batch_size: int,
        maximum_steps: int,
        *,
        growth: int = 2,
        scale_learning_rate: str | None = None,
        momentum_correction: bool = True,
    ) -> None:
        super().__init__()
        self.micro_batch_size = check_integer("micro_batch_size", micro_batch_size, minimum=1)
        self.maximum_steps = check_integer("maximum_steps", maximum_steps, minimum=2)
        self.growth = check_integer("growth", growth, minimum=2)
        choices = (None, "linear", "sqrt", "auto")
        self.scale_learning_rate = check_choice("scale_learning_rate", scale_learning_rate, choices)
        self.momentum_correction = bool(momentum_correction)

    def on_train_begin(self, logs: Any = None) -> None:
        """Checks the optimizer."""
        optimizer = only_optimizer(self.model, "NoiseScaleRamp", "Use `BatchSizeRamp` with a schedule.")
        accumulation, _ = accumulation_in(optimizer)
        if accumulation is None or isinstance(accumulation.steps, BatchSizeSchedule):
            raise ValueError(
                "`NoiseScaleRamp` needs an optimizer with accumulation of a number of steps. Received: "
                f"{type(optimizer).__name__}. Use `GradientAccumulation(optimizer, steps=2)`."
            )
        self._accumulation = accumulation
        self._power = power_of(self.scale_learning_rate, optimizer)
        (self._rate,) = rates_of(self.model).values()
        if self._power:
            self._rate.prepare(self.model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Grows if the noise asks for it."""
        logs = {} if logs is None else logs
        if "noise_scale" not in logs:
            raise ValueError("`NoiseScaleRamp` must come after a `GradientNoiseScale` in the callbacks.")
        steps = int(self._accumulation.current_steps.numpy())
        logs["batch_size"] = steps * self.micro_batch_size
        wanted = logs["noise_scale"] / self.micro_batch_size
        if math.isnan(wanted):
            return
        new = int(min(wanted, steps * self.growth, self.maximum_steps))
        if new > steps:
            self._accumulation.set_steps(new)
            if self._power:
                factor = self._rate.factor(_OWNER) * (new / steps) ** self._power
                couple(self._rate, _OWNER, factor, self.momentum_correction)

    def get_state(self) -> dict[str, Any]:
        """The factor of the rate; the optimizer holds the steps."""
        return {"factor": self._rate.factor(_OWNER)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores it."""
        self._rate.restore_factor(_OWNER, state["factor"])
