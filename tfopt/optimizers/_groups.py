"""How groups reach the optimizers inside `ParameterGroups`, and which combinations are refused."""

import re
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfopt._keras_internals import is_multi_optimizer
from tfopt.optimizers._kernels import assign, read
from tfopt.optimizers._rule import RuleOptimizer
from tfopt.optimizers._slots import path_of
from tfopt.optimizers._update import handle
from tfopt.optimizers._wrapper import core_of, refuse_inside
from tfopt.optimizers.gradient_accumulation import GradientAccumulation
from tfopt.optimizers.prodigy import Prodigy


def place_of(variable: Any) -> str:
    """Layer and name of a variable without the numbers that Keras counts up, and its shape."""
    names = [re.sub(r"_\d+$", "", part) for part in path_of(variable).split("/")[-2:]]
    return f"{'/'.join(names)} {tuple(variable.shape)}"


def check_combination(wrapper: Any) -> None:
    """Refuses groups in which an optimizer would not be what its name says."""
    inner, others = wrapper.inner_optimizer, wrapper.group_optimizers
    if any(is_multi_optimizer(core_of(each)) for each in (inner, *others)):
        raise ValueError("`optimizer` must not be a `MultiOptimizer`. Use `Group(match, optimizer=...)`.")
    reason = "its groups would replace these. Add the lists of groups."
    for optimizer in (inner, *others):
        refuse_inside(wrapper, optimizer, (type(wrapper),), reason)
    for optimizer in (inner, *others) if others else ():
        reason = "all variables have to wait for the same updates. Put it outside."
        kinds = (GradientAccumulation, keras.optimizers.LossScaleOptimizer)
        refuse_inside(wrapper, optimizer, kinds, reason)
    names = [each.name for each in (inner, *others)]
    if len({id(each) for each in (inner, *others)}) != len(names) or len(set(names)) != len(names):
        raise ValueError(
            "The optimizers of `ParameterGroups` must be different objects with different names. "
            f"Received: {names}. Leave `optimizer` out in groups of the default one, or set `name`."
        )
    for group in wrapper.groups:
        core = core_of(group.optimizer or inner)
        if isinstance(core, Prodigy) and group.learning_rate_multiplier != 1:
            raise ValueError(
                "`Prodigy` estimates one learning rate for all its variables, which multipliers falsify. "
                f"Received: learning_rate_multiplier={group.learning_rate_multiplier} for {group.match!r}. "
                "Use AdamW, or set `trainable = False` for what should not move."
            )


def hand_over(
    core: keras.optimizers.Optimizer, variables: list[Any], groups: list[tuple[float, float | None]]
) -> None:
    """Gives one optimizer the multipliers and decays of its variables."""
    if isinstance(core, RuleOptimizer):  # which knows after loading, too, what was excluded
        excluded = [index in (core.undecayed or ()) for index in range(len(variables))]
    else:
        excluded = [not core._use_weight_decay(variable) for variable in variables]
    inherited = [None if out else core.weight_decay for out in excluded]
    resolved = [
        (multiplier, own if decay is None else decay) for (multiplier, decay), own in zip(groups, inherited)
    ]
    if isinstance(core, RuleOptimizer):
        core.set_groups(resolved)
    else:
        _install(core, resolved)


def _install(core: keras.optimizers.Optimizer, groups: Sequence[tuple[float, float | None]]) -> None:
    """Makes one of Keras's optimizers use the groups: they enter where it takes up rate and decay."""
    plain_step, index = core.update_step, core._get_variable_index

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> Any:
        multiplier = groups[index(variable)][0]
        return plain_step(gradient, variable, tf.convert_to_tensor(learning_rate) * multiplier)

    def apply_weight_decay(variables: Sequence[Any]) -> None:
        for variable in variables:
            multiplier, decay = groups[index(variable)]
            if decay:
                shrink = 1 - tf.convert_to_tensor(core.learning_rate) * multiplier * decay
                value = read(handle(variable), variable.dtype)
                assign(handle(variable), value * tf.cast(shrink, value.dtype))

    core.update_step = update_step
    core._apply_weight_decay = apply_weight_decay
