"""How the learning rate follows the batch size, and what momentum needs when the rate jumps."""

from typing import Any

import keras

from tfopt._checks import message
from tfopt.callbacks._rate import Rate
from tfopt.optimizers import LARS, SGD, GradientAccumulation, RMSprop, ScheduleFreeSGD
from tfopt.optimizers._wrapper import OptimizerWrapper, chain_of

_PLAIN_GRADIENT = (keras.optimizers.SGD, SGD, LARS, ScheduleFreeSGD)
_RATE_IN_VELOCITY = (keras.optimizers.SGD, keras.optimizers.RMSprop, SGD, RMSprop, LARS)


def power_of(rule: str | None, optimizer: keras.optimizers.Optimizer) -> float:
    """The rate goes with this power of the batch size; "auto" asks how the optimizer uses the gradient."""
    if rule == "auto":
        kinds = [each for each in chain_of(optimizer) if chain_of(each) == [each]]
        plain = {isinstance(each, _PLAIN_GRADIENT) for each in kinds}
        if len(plain) > 1:
            names = [type(each).__name__ for each in kinds]
            fix = 'Say "linear" or "sqrt", for all of them.'
            raise ValueError(
                message("scale_learning_rate", "the same for all groups", rule, f"{names} differ. {fix}")
            )
        rule = "linear" if plain == {True} else "sqrt"
    return {None: 0.0, "linear": 1.0, "sqrt": 0.5}[rule]


def couple(rate: Rate, owner: str, factor: float, momentum_correction: bool) -> None:
    """Sets the owner's factor of the rate and lets the velocity follow the jump."""
    before = rate.factor(owner)
    rate.set_factor(owner, factor)
    if momentum_correction and factor != before:
        _correct_momentum(rate.optimizer, factor / before)


def accumulation_in(optimizer: Any) -> tuple[GradientAccumulation | None, bool]:
    """The `GradientAccumulation` among the wrappers, and whether one outside of it sums over replicas."""
    summed = False
    while isinstance(optimizer, OptimizerWrapper | keras.optimizers.LossScaleOptimizer):
        if isinstance(optimizer, GradientAccumulation):
            return optimizer, summed
        summed = summed or (isinstance(optimizer, OptimizerWrapper) and optimizer.sums_gradients)
        optimizer = optimizer.inner_optimizer
    return None, summed


def _correct_momentum(optimizer: keras.optimizers.Optimizer, ratio: float) -> None:
    """Scales a velocity that holds old rates to the new one, as if it had always been the rate.

    Goyal et al., arXiv:1706.02677, section 3, remark 2. Adam's and other moments hold no rate.
    """
    for core in chain_of(optimizer):
        if isinstance(core, _RATE_IN_VELOCITY):
            for variable in core.variables:
                if variable.name.endswith("_momentum"):
                    variable.assign(keras.ops.multiply(variable, ratio))
