"""Lets an update leave single variables as they are, where only the graph knows which.

An optimizer takes its variables as a Python list, but which of them had a gradient in a cycle of accumulation
is known when the cycle ends. So all are updated, and the untouched ones get back what they had.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers._kernels import assign, read
from tfopt.optimizers._rule import RuleOptimizer
from tfopt.optimizers._update import handle
from tfopt.optimizers._wrapper import chain_of

# Lists with an entry for each variable that are no state of its update.
_OTHER_LISTS = ("_variables", "_trainable_variables", "_model_variables_moving_average")


def update_touched(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[Any],
    touched: tf.Tensor,
    update: Callable[[], None],
) -> None:
    """Calls `update`, then restores the variables whose entry in `touched` is false, with their slots."""
    owned = [[variable, *_state_of(optimizer, variable)] for variable in variables]
    before = [[read(handle(each), each.dtype) for each in group] for group in owned]
    update()
    for index, (group, old) in enumerate(zip(owned, before)):
        for each, value in zip(group, old):
            assign(handle(each), tf.where(touched[index], read(handle(each), each.dtype), value))


def _state_of(optimizer: keras.optimizers.Optimizer, variable: Any) -> list[keras.Variable]:
    """The state that an optimizer, with all inside it, keeps for one variable."""
    state: list[keras.Variable] = []
    for each in chain_of(optimizer):
        if each._var_key(variable) not in each._trainable_variables_indices:
            continue
        index = each._get_variable_index(variable)
        if isinstance(each, RuleOptimizer):
            state += each._slots[index]
        elif type(each).__module__.startswith("keras."):
            state += _keras_state(each, index)
    return state


def _keras_state(optimizer: keras.optimizers.Optimizer, index: int) -> list[keras.Variable]:
    """Keras's optimizers keep lists such as `_momentums`, in the order of the variables."""
    count = len(optimizer._trainable_variables)
    lists = [
        value
        for name, value in vars(optimizer).items()
        if name not in _OTHER_LISTS and isinstance(value, list) and len(value) == count
    ]
    return [values[index] for values in lists if isinstance(values[index], keras.Variable)]
