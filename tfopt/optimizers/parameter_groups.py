"""ParameterGroups: a learning rate and a weight decay per part of a model."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfopt import _checks
from tfopt._keras_internals import is_multi_optimizer
from tfopt.optimizers._kernels import assign, read
from tfopt.optimizers._rule import RuleOptimizer
from tfopt.optimizers._slots import path_of
from tfopt.optimizers._update import handle
from tfopt.optimizers._wrapper import OptimizerWrapper, core_of
from tfopt.optimizers.groups import Group, resolve


@keras.saving.register_keras_serializable(package="tfopt")
class ParameterGroups(OptimizerWrapper):
    """Gives parts of a model their own learning rate and weight decay.

    For fine-tuning (low layers learn slower) and for norms and biases without decay. For different
    optimizers per part use Keras's `MultiOptimizer`. A variable that matches several groups gets the
    product of their multipliers and the last weight decay that is not None.

    Cost: none. The resolved assignment is part of the config, because the path of a variable can change
    when a Sequential or nested model is loaded.

    Args:
        optimizer: The Keras optimizer to wrap.
        groups: List of `Group`. Build them with `layer_decay`, `discriminative` and
            `no_decay_on_norm_and_bias`, which can be added.
        assignment: (multiplier, weight decay or None) for every variable, as resolved by `build`. Stored
            in saved optimizers; leave it out.
        **base_options: `name`.

    Raises:
        ValueError: If a pattern matches no variable, or the assignment is for other variables.

    Example:
        >>> groups = [tfopt.optimizers.Group("bias", learning_rate_multiplier=2.0)]
        >>> optimizer = tfopt.optimizers.ParameterGroups(keras.optimizers.SGD(0.1), groups)
        >>> kernel, bias = keras.Variable([1.0], name="kernel"), keras.Variable([1.0], name="bias")
        >>> optimizer.apply([tf.constant([1.0]), tf.constant([1.0])], [kernel, bias])
        >>> kernel.numpy(), bias.numpy()
        (array([0.9], dtype=float32), array([0.8], dtype=float32))
    """

    def __init__(self, optimizer: Any, groups: Sequence[Group], assignment: Any = None, **base_options: Any):
        super().__init__(optimizer, **base_options)
        _checks.check_instance("groups", groups, (list, tuple))
        for group in groups:
            _checks.check_instance("groups", group, Group, "Give a list of `Group`.")
        self.groups = tuple(groups)
        self.assignment = assignment

    @property
    def sums_gradients(self) -> bool:
        """An inner wrapper sums the gradients itself."""
        return not isinstance(self.inner_optimizer, OptimizerWrapper)

    def build_own(self, variables: Any) -> None:
        """Resolves the groups and hands the result to the optimizer inside all wrappers."""
        if self.assignment is None:
            self.assignment = resolve(self.groups, [path_of(variable) for variable in variables])
        if len(self.assignment) != len(variables):
            raise ValueError(
                f"`assignment` must have one entry for each of the {len(variables)} variables. "
                f"Received: {len(self.assignment)} entries. The model has changed: leave it out."
            )
        core = core_of(self.inner_optimizer)
        if is_multi_optimizer(core):
            raise ValueError("`optimizer` must not be a `MultiOptimizer`. Wrap each optimizer inside it.")
        if isinstance(core, RuleOptimizer):  # which knows after loading, too, what was excluded
            excluded = [index in (core.undecayed or ()) for index in range(len(variables))]
        else:
            excluded = [not core._use_weight_decay(variable) for variable in variables]
        inherited = [None if out else core.weight_decay for out in excluded]
        resolved = [
            (multiplier, own if decay is None else decay)
            for (multiplier, decay), own in zip(self.assignment, inherited)
        ]
        if isinstance(core, RuleOptimizer):
            core.set_groups(resolved)
        else:
            _install(core, resolved)

    def step(self, grads: list[Any], variables: list[Any]) -> None:
        """The inner step, in which the groups take effect."""
        self.inner_optimizer.apply(grads, variables)

    def get_config(self) -> dict[str, Any]:
        """Groups and assignment in plain values."""
        config = super().get_config()
        config["groups"] = [group.get_config() for group in self.groups]
        if self.assignment is not None:
            config["assignment"] = [list(entry) for entry in self.assignment]
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "ParameterGroups":
        """The reverse of `get_config`."""
        groups = [Group.from_config(group) for group in config["groups"]]
        return super().from_config({**config, "groups": groups}, custom_objects)


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
