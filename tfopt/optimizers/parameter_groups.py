"""ParameterGroups: a learning rate, a weight decay and an optimizer per part of a model."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfopt import _checks
from tfopt.optimizers import _arguments, _groups, _saved
from tfopt.optimizers._kernels import assign, read
from tfopt.optimizers._update import handle
from tfopt.optimizers._wrapper import OptimizerWrapper, averages_of, core_of
from tfopt.optimizers.groups import Assigned, Group, resolve


@keras.saving.register_keras_serializable(package="tfopt")
class ParameterGroups(OptimizerWrapper):
    """Gives parts of a model their own learning rate, weight decay or optimizer.

    For fine-tuning (low layers learn slower), for norms and biases without decay, and for different
    optimizers in one model, such as Muon for kernels and AdamW for the rest. A variable that matches several
    groups gets the product of their multipliers, and the last weight decay and optimizer that are not None.

    All optimizers count the same `iterations`. `learning_rate` is that of `optimizer`; setting it moves the
    others by the same factor, so that callbacks act on all. Each optimizer clips its own variables: the norm
    of `global_clipnorm` is that of the variables of one optimizer. `group_optimizers` lists those of the
    groups.

    Cost: none. The resolved assignment is part of the config, because the path of a variable can change
    when a Sequential or nested model is loaded. For a model with other layers or shapes the groups are
    resolved again.

    Args:
        optimizer: The Keras optimizer to wrap.
        groups: List of `Group`. Build them with `layer_decay`, `discriminative` and
            `no_decay_on_norm_and_bias`, which can be added.
        assignment: (multiplier, weight decay or None) for every variable, with the index of its optimizer
            if groups have some, as resolved by `build`. Stored in saved optimizers; leave it out.
        assigned_to: Layer, name and shape of the variables of `assignment`. Leave it out.
        **base_options: `name`.

    Raises:
        ValueError: If an entry matches no variable, the assignment is for other variables, or groups change
            what an optimizer means (rates in `Prodigy`, accumulation in one group).

    Example:
        >>> groups = [tfopt.optimizers.Group("bias", learning_rate_multiplier=2.0)]
        >>> optimizer = tfopt.optimizers.ParameterGroups(keras.optimizers.SGD(0.1), groups)
        >>> kernel, bias = keras.Variable([1.0], name="kernel"), keras.Variable([1.0], name="bias")
        >>> optimizer.apply([tf.constant([1.0]), tf.constant([1.0])], [kernel, bias])
        >>> kernel.numpy(), bias.numpy()
        (array([0.9], dtype=float32), array([0.8], dtype=float32))
    """

    def __init__(
        self,
        optimizer: Any,
        groups: Sequence[Group],
        assignment: Any = None,
        assigned_to: Any = None,
        **base_options: Any,
    ):
        super().__init__(optimizer, **base_options)
        _checks.check_instance("groups", groups, (list, tuple))
        for group in groups:
            _checks.check_instance("groups", group, Group, "Give a list of `Group`.")
        self.groups = tuple(groups)
        self.assignment, self.assigned_to = assignment, assigned_to
        own = {id(group.optimizer): group.optimizer for group in groups if group.optimizer is not None}
        self.group_optimizers = list(own.values())
        self._ratios: list[float] = []
        _groups.check_combination(self)
        for each in self.group_optimizers:
            each.loss_scale_factor = None  # as for `optimizer`: gradients are unscaled here

    @property
    def sums_gradients(self) -> bool:
        """An inner wrapper sums the gradients itself, unless the gradients are divided here."""
        return bool(self.group_optimizers) or not isinstance(self.inner_optimizer, OptimizerWrapper)

    @property
    def _optimizers(self) -> list[keras.optimizers.Optimizer]:
        return [self.inner_optimizer, *self.group_optimizers]

    def build_inner(self, variables: Sequence[Any]) -> None:
        """Resolves the groups, builds each optimizer on its variables, and hands it rates and decays."""
        self._resolve(variables)
        self._owner = [int(entry[2]) if len(entry) > 2 else 0 for entry in self.assignment]
        for index, optimizer in enumerate(self._optimizers):
            own = [place for place, owner in enumerate(self._owner) if owner == index]
            if _saved.has_no_variables(optimizer):
                optimizer.built = False
            optimizer.build([variables[place] for place in own])
            if own:
                _groups.hand_over(
                    core_of(optimizer),
                    [variables[place] for place in own],
                    [tuple(self.assignment[place][:2]) for place in own],
                )

    def _resolve(self, variables: Sequence[Any]) -> None:
        """Sets `assignment`, unless the config of a saved optimizer brought that of the same variables."""
        places = [_groups.place_of(variable) for variable in variables]
        same = self.assigned_to is None or list(self.assigned_to) == places
        if self.assignment is None or not same:
            found = resolve(self.groups, variables)
            if self.assignment is not None and self.groups and all(each == Assigned() for each in found):
                raise ValueError(
                    "`assignment` was made for other variables, and the groups match none of these. "
                    "Make the groups anew for this model."
                )
            numbers = {id(optimizer): index for index, optimizer in enumerate(self._optimizers)}
            extra = bool(self.group_optimizers)
            self.assignment = [
                (multiplier, decay, *([numbers.get(id(optimizer), 0)] if extra else []))
                for multiplier, decay, optimizer in found
            ]
        self.assigned_to = places
        if len(self.assignment) != len(variables):
            raise ValueError(
                f"`assignment` must have one entry for each of the {len(variables)} variables. "
                f"Received: {len(self.assignment)} entries. The model has changed: leave it out."
            )

    def step(self, grads: list[Any], variables: list[Any]) -> None:
        """The inner steps, in which the groups take effect."""
        if not self.group_optimizers:
            self.inner_optimizer.apply(grads, variables)
            return
        counters = [handle(core_of(optimizer)._iterations) for optimizer in self._optimizers]
        following = read(counters[0], "int64") + 1
        owners = [self._owner[self._get_variable_index(variable)] for variable in variables]
        for index, optimizer in enumerate(self._optimizers):
            pairs = [pair for pair, owner in zip(zip(grads, variables), owners) if owner == index]
            if pairs:
                optimizer.apply([grad for grad, _ in pairs], [variable for _, variable in pairs])
        for counter in counters:  # also of an optimizer that had no gradient
            assign(counter, following)

    @property
    def variables(self) -> list[keras.Variable]:
        """Own state, then that of the optimizers."""
        return super().variables + [v for each in self.group_optimizers for v in each.variables]

    @property
    def learning_rate(self) -> Any:
        """Of `optimizer`; when it is set, the rates of the groups' optimizers move by the same factor."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        old = float(self.inner_optimizer.learning_rate) if self.group_optimizers else 0.0
        if old > 0:
            self._ratios = [float(each.learning_rate) / old for each in self.group_optimizers]
        self.inner_optimizer.learning_rate = _arguments.new_learning_rate(learning_rate)
        for each, ratio in zip(self.group_optimizers, self._ratios):
            each.learning_rate = float(self.inner_optimizer.learning_rate) * ratio

    def average_values(self, variables: Sequence[Any]) -> list[tf.Tensor] | None:
        """Those of the optimizers that average; the variables of the others as they are."""
        if not self.group_optimizers:
            return super().average_values(variables)
        averages: list[Any] = [None] * len(variables)
        for index, optimizer in enumerate(self._optimizers):
            places = [
                place
                for place, variable in enumerate(variables)
                if self._owner[self._get_variable_index(variable)] == index
            ]
            own = averages_of(optimizer, [variables[place] for place in places]) if places else None
            for place, value in zip(places, own or ()):
                averages[place] = value
        if all(value is None for value in averages):
            return None
        pairs = zip(averages, variables)
        return [tf.convert_to_tensor(variable if value is None else value) for value, variable in pairs]

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Of all optimizers."""
        super().exclude_from_weight_decay(var_list, var_names)
        for each in self.group_optimizers:
            each.exclude_from_weight_decay(var_list, var_names)

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Of all optimizers, each for its variables."""
        for optimizer in self._optimizers:
            own = {optimizer._var_key(variable) for variable in optimizer._trainable_variables}
            optimizer.finalize_variable_values([v for v in var_list if optimizer._var_key(v) in own])

    def get_config(self) -> dict[str, Any]:
        """Groups and assignment in plain values; an optimizer of several groups is stored in each."""
        config = super().get_config()
        config["groups"] = [group.get_config() for group in self.groups]
        for name in ("assignment", "assigned_to"):
            if config[name] is not None:
                config[name] = [list(entry) if isinstance(entry, tuple) else entry for entry in config[name]]
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "ParameterGroups":
        """The reverse of `get_config`."""
        made: dict[str, Any] = {}
        groups = []
        for each in config["groups"]:
            group = Group.from_config(each, custom_objects)
            if group.optimizer is not None:  # groups with the same optimizer share it again
                shared = made.setdefault(group.optimizer.name, group.optimizer)
                group = dataclasses.replace(group, optimizer=shared)
            groups.append(group)
        return super().from_config({**config, "groups": groups}, custom_objects)
