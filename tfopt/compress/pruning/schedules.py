"""How sparse at which step: `schedule(step) -> (due, sparsity)`, the protocol of tfmot's PruningSchedule.

A step is the number of the optimizer update that comes next, from 1 on, as in tfmot. Its objects
(`PolynomialDecay`, `ConstantSparsity`) work wherever one of these does.
"""

from collections.abc import Callable
from typing import Any, TypeAlias, final

import tensorflow as tf

from tfopt._checks import check_integer, check_number, message

Schedule: TypeAlias = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


@final
class CubicSparsity:
    """Raises the sparsity fast at first and slowly at the end, which is when pruning hurts.

    Use it for gradual pruning of a trained model. `Pruning(0.8)` makes one that fits the run.

        progress = (step - begin_step) / (end_step - begin_step)
        sparsity = final + (initial - final) * (1 - progress)^3

    Args:
        final_sparsity: Share of zero weights at `end_step`, in [0, 1).
        end_step: Optimizer update at which the sparsity is final; the masks stay as they are after it.
        begin_step: Optimizer update of the first mask.
        initial_sparsity: Share of zeros at `begin_step`, in [0, 1).
        frequency: Updates between two masks. The mask at `end_step` is always made.

    Raises:
        ValueError: If a sparsity is outside [0, 1), or `end_step` is before `begin_step`.

    Example:
        >>> schedule = tfopt.compress.CubicSparsity(0.8, end_step=1000, frequency=50)
        >>> due, sparsity = schedule(500)
        >>> round(float(sparsity), 3)
        0.7

    Differs from tfmot: `PolynomialDecay(power=3)` skips the last mask unless `frequency` divides the span.

    References:
        Zhu, Gupta: To prune, or not to prune. arXiv:1710.01878
    """

    def __init__(
        self,
        final_sparsity: float,
        end_step: int,
        *,
        begin_step: int = 0,
        initial_sparsity: float = 0.0,
        frequency: int = 100,
    ) -> None:
        self.final_sparsity = check_sparsity("final_sparsity", final_sparsity)
        self.initial_sparsity = check_sparsity("initial_sparsity", initial_sparsity)
        self.begin_step = check_integer("begin_step", begin_step, minimum=0)
        self.end_step = check_integer("end_step", end_step, minimum=self.begin_step)
        self.frequency = check_integer("frequency", frequency, minimum=1)

    def __call__(self, step: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Whether a mask is due at this optimizer update, and its sparsity."""
        step = tf.cast(step, tf.int64)
        turn = (step - self.begin_step) % self.frequency == 0
        due = (step >= self.begin_step) & (step <= self.end_step) & (turn | (step == self.end_step))
        span = max(self.end_step - self.begin_step, 1)
        progress = tf.clip_by_value(tf.cast(step - self.begin_step, tf.float32) / span, 0.0, 1.0)
        progress = tf.where(step >= self.end_step, 1.0, progress)
        left = (1.0 - progress) ** 3
        return due, self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * left


@final
class OneShotSparsity:
    """Prunes once, at one step, and trains with that mask from there on.

    Use it for low sparsities or long fine-tuning; `CubicSparsity` loses less at high sparsities.

    Args:
        sparsity: Share of zero weights, in [0, 1).
        step: Number of the optimizer update before which the mask is made, >= 1.

    Raises:
        ValueError: If a sparsity is outside [0, 1) or a step is below 1.

    Example:
        >>> due, sparsity = tfopt.compress.OneShotSparsity(0.5, step=10)(10)
        >>> bool(due), float(sparsity)
        (True, 0.5)

    Differs from tfmot: `ConstantSparsity` makes a new mask every `frequency` steps.
    """

    def __init__(self, sparsity: float, step: int = 1) -> None:
        self.sparsity = check_sparsity("sparsity", sparsity)
        self.step = check_integer("step", step, minimum=1)

    def __call__(self, step: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """Whether the mask is due at this optimizer update, and its sparsity."""
        step = tf.cast(step, tf.int64)
        return tf.equal(step, self.step), tf.where(step >= self.step, self.sparsity, 0.0)


def check_sparsity(name: str, value: Any) -> float:
    """A share of zeros in [0, 1), as a float."""
    fix = "0.8 means that 80 % of the weights are zero." if _looks_like_percent(value) else ""
    return check_number(name, value, minimum=0.0, maximum=1.0, open_maximum=True, fix=fix)


def check_target(target: Any) -> float | Schedule:
    """A sparsity in [0, 1) or a schedule: anything that is called with a step."""
    if callable(target):
        return target
    if isinstance(target, str) or target is None:
        raise TypeError(message("target", "a sparsity in [0, 1) or a pruning schedule", target))
    return check_sparsity("target", target)


def _looks_like_percent(value: Any) -> bool:
    return isinstance(value, int | float) and 1 <= value <= 100
