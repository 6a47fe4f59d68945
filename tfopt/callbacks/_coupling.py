"""How the learning rate follows the batch size, and what momentum needs when the rate jumps."""

import keras

from tfopt.optimizers import LARS, SGD, RMSprop, ScheduleFreeSGD
from tfopt.optimizers._wrapper import core_of

_PLAIN_GRADIENT = (keras.optimizers.SGD, SGD, LARS, ScheduleFreeSGD)
_RATE_IN_VELOCITY = (keras.optimizers.SGD, keras.optimizers.RMSprop, SGD, RMSprop, LARS)


def power_of(rule: str | None, optimizer: keras.optimizers.Optimizer) -> float:
    """The rate goes with this power of the batch size; "auto" asks how the optimizer uses the gradient."""
    if rule == "auto":
        rule = "linear" if isinstance(core_of(optimizer), _PLAIN_GRADIENT) else "sqrt"
    return {None: 0.0, "linear": 1.0, "sqrt": 0.5}[rule]


def correct_momentum(optimizer: keras.optimizers.Optimizer, ratio: float) -> None:
    """Scales a velocity that holds old rates to the new one, as if it had always been the rate.

    Goyal et al., arXiv:1706.02677, section 3, remark 2. Adam's and other moments hold no rate.
    """
    core = core_of(optimizer)
    if isinstance(core, _RATE_IN_VELOCITY):
        for variable in core.variables:
            if variable.name.endswith("_momentum"):
                variable.assign(keras.ops.multiply(variable, ratio))
