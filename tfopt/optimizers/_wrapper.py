"""The shell of every wrapper: forwards what belongs to the inner optimizer, sums the gradients once.

A naive wrapper under a strategy works on the gradients of one replica while the inner optimizer sums
them later: the replicas then end with different weights. So the wrapper sums and tells the inner
optimizer not to (`_all_reduce_sum_gradients` becomes the identity), which also makes Keras's clipping
act on the sum. A wrapper that only looks at the weights leaves the sum to an inner wrapper.
"""

import abc
import contextlib
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfopt import _checks
from tfopt._keras_internals import is_multi_optimizer
from tfopt.optimizers import _arguments, _rows, _saved
from tfopt.optimizers._assigned import Followers
from tfopt.optimizers._kernels import assign
from tfopt.optimizers._rule import RuleOptimizer, ema_values
from tfopt.optimizers._slots import is_overwritten
from tfopt.optimizers._update import handle


class OptimizerWrapper(keras.optimizers.Optimizer, abc.ABC):
    """Base of all tfopt wrappers around any Keras optimizer.

    Args:
        optimizer: The `keras.optimizers.Optimizer` to wrap: Keras's, tfopt's or another wrapper.
        loss_scale_factor: Float > 0 or None. Moves here from the inner optimizer, so that the wrapper
            sees unscaled gradients.
        name: String or None.
    """

    def __init__(self, optimizer: Any, *, loss_scale_factor: float | None = None, name: str | None = None):
        optimizer = _as_optimizer(optimizer)
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                "`optimizer` must not be a `LossScaleOptimizer`: it has to see the gradients first. "
                "Received: optimizer=LossScaleOptimizer(...). Put the LossScaleOptimizer outside."
            )
        factor = optimizer.loss_scale_factor if loss_scale_factor is None else loss_scale_factor
        super().__init__(
            learning_rate=0.0,
            loss_scale_factor=_arguments.optional("loss_scale_factor", factor, _arguments.positive),
            name=name,
        )
        optimizer.loss_scale_factor = None
        self.inner_optimizer = optimizer
        self._waiting: Sequence[Any] | None = None
        self._followers: Followers | None = None

    @abc.abstractmethod
    def step(self, grads: list[Any], variables: list[Any]) -> None:
        """Applies `self.inner_optimizer` and the wrapper's own part to gradients without None."""

    def build_inner(self, variables: Sequence[Any]) -> None:
        """Builds the inner optimizer."""
        if _saved.has_no_variables(self.inner_optimizer):
            self.inner_optimizer.built = False
        self.inner_optimizer.build(variables)

    def build_own(self, variables: Sequence[Any]) -> None:
        """Creates the wrapper's own state; called outside of any graph."""

    @property
    def sums_gradients(self) -> bool:
        """Whether this wrapper sums over the replicas itself."""
        return True

    @tf.autograph.experimental.do_not_convert
    def build(self, variables: Sequence[Any]) -> None:
        """Builds the inner optimizer, then the own state."""
        if self.built and not _saved.has_no_variables(self):
            return
        with tf.init_scope():
            self.build_inner(variables)
            super().build(variables)
            if not variables:
                return
            self.build_own(variables)
            if self._waiting:  # see `RuleOptimizer.build`
                self.set_weights(self._waiting)
        if self.sums_gradients:
            skip_all_reduce(self.inner_optimizer)

    @tf.autograph.experimental.do_not_convert  # in a user's own step too: nothing here needs it
    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        """Updates the variables; `grads` are those of this replica, one per variable or None."""
        _arguments.check_context()
        if len(grads) == 0:  # as in Keras
            return
        if trainable_variables is None and not self.built:
            raise ValueError(
                "`apply` without `trainable_variables` needs a built optimizer. Call "
                "`optimizer.build(model.trainable_variables)` first."
            )
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            self.build(trainable_variables)
        variables = list(self._trainable_variables if trainable_variables is None else trainable_variables)
        self._check_variables_are_known(variables)
        grads = _arguments.as_tensors(grads, variables)
        grads, variables = self._filter_empty_gradients(grads, variables)
        _arguments.check_shapes(grads, variables)
        # The reason is the same as in RuleOptimizer.apply: no step without data.
        updating = self._followers.updating() if self._followers else contextlib.nullcontext()
        with updating, tf.control_dependencies([_rows.gate(grads)]):
            grads, variables = self._split(grads, variables)
            # Keras's adaptive optimizers square duplicate rows before they add them; merged ones are right.
            grads = [_rows.merged(g) if isinstance(g, tf.IndexedSlices) else g for g in grads]
            if self.loss_scale_factor is not None:
                grads = [_rows.scaled(grad, 1 / self.loss_scale_factor) for grad in grads]
            if self.sums_gradients and variables:
                grads = [grad for grad, _ in self._all_reduce_sum_gradients(list(zip(grads, variables)))]
            if variables:
                self.step(grads, variables)

    def overwrite(self, pairs: list[Any]) -> None:
        """Takes (next value, variable) of the variables that are not trained: the scales of float8.

        They are neither scaled nor averaged nor given to the rule.
        """
        if isinstance(self.inner_optimizer, OptimizerWrapper):
            self.inner_optimizer.overwrite(pairs)
            return
        for value, variable in pairs:
            assign(handle(variable), value)

    def _split(self, grads: Sequence[Any], variables: list[Any]) -> tuple[list[Any], list[Any]]:
        """Hands on what overwrites; returns the others."""
        pairs = list(zip(grads, variables))
        direct = [pair for pair in pairs if is_overwritten(pair[1])]
        if direct:
            self.overwrite([(_largest(value), variable) for value, variable in direct])
        trained = [pair for pair in pairs if not is_overwritten(pair[1])]
        return [grad for grad, _ in trained], [variable for _, variable in trained]

    def _all_reduce_sum_gradients(self, grads_and_vars: list) -> list:
        if tf.distribute.get_strategy().num_replicas_in_sync == 1:
            return grads_and_vars
        return super()._all_reduce_sum_gradients(grads_and_vars)

    @property
    def variables(self) -> list[keras.Variable]:
        """Own state, then that of the inner optimizer."""
        return self._variables + self.inner_optimizer.variables

    @property
    def learning_rate(self) -> Any:
        """Of the inner optimizer."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.inner_optimizer.learning_rate = _arguments.new_learning_rate(learning_rate)

    @property
    def iterations(self) -> Any:
        """Updates of the inner optimizer."""
        return self.inner_optimizer.iterations

    def average_values(self, variables: Sequence[Any]) -> list[tf.Tensor] | None:
        """Those of the inner optimizer, see `RuleOptimizer.average_values`."""
        return averages_of(self.inner_optimizer, variables)

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Of the inner optimizer, which makes the decay; refused after `build`, where Keras ignores it."""
        if self.built:
            raise ValueError("`exclude_from_weight_decay` must be called before the optimizer is built.")
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Of the inner optimizer."""
        self.inner_optimizer.finalize_variable_values(var_list)

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets all of `variables`, those of the inner optimizer too."""
        self._waiting = _saved.set_weights(self, weights)

    def load_own_variables(self, store: Any) -> None:
        """Loads a saved state; one that does not fit changes nothing."""
        store = _saved.own_part(self, store)
        if _saved.holds_state(self, store):
            super().load_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        """The own arguments; the inner optimizer under `optimizer`."""
        config = {"name": self.name, "loss_scale_factor": self.loss_scale_factor}
        inner = keras.saving.serialize_keras_object(self.inner_optimizer)
        return config | {"optimizer": inner} | _arguments.own_config(self, config | {"optimizer": None})

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "OptimizerWrapper":
        """The reverse of `get_config`."""
        inner = keras.saving.deserialize_keras_object(config["optimizer"], custom_objects=custom_objects)
        return cls(**{**config, "optimizer": inner})


def _as_optimizer(value: Any) -> keras.optimizers.Optimizer:
    """An optimizer; a name or a config becomes one, as in `compile`."""
    if isinstance(value, str | dict):
        return keras.optimizers.get(value)
    fix = ""
    if isinstance(value, type) and issubclass(value, keras.optimizers.Optimizer):
        fix = f"Make one of the class: {value.__name__}()."
    return _checks.check_instance("optimizer", value, keras.optimizers.Optimizer, fix)


def refuse_inside(
    wrapper: keras.optimizers.Optimizer, optimizer: keras.optimizers.Optimizer, kinds: tuple, reason: str
) -> None:
    """Refuses a wrapper that must not be inside this one, at any depth; `reason` ends in the way out."""
    outer = type(wrapper).__name__
    for each in chain_of(optimizer):
        if isinstance(each, kinds):
            raise ValueError(
                f"`{outer}` must not wrap a `{type(each).__name__}`: {reason} "
                f"Received: optimizer={type(optimizer).__name__}(...)."
            )
        if each.gradient_accumulation_steps:
            raise ValueError(
                f"`{outer}` must not wrap an optimizer with `gradient_accumulation_steps`: it would act on "
                "the gradient of a single call. Use tfopt.optimizers.GradientAccumulation around "
                f"`{outer}` instead."
            )


def _largest(value: tf.Tensor) -> tf.Tensor:
    """The largest over the replicas, which must stay equal."""
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return value
    values = tf.distribute.get_replica_context().all_gather(tf.expand_dims(value, 0), axis=0)
    return tf.reduce_max(values, axis=0)


def averages_of(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> list[tf.Tensor] | None:
    """The average of the weights that any optimizer keeps, or None."""
    own = isinstance(optimizer, RuleOptimizer | OptimizerWrapper)
    return optimizer.average_values(variables) if own else ema_values(optimizer, variables)


def chain_of(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """An optimizer and all inside it, those of `ParameterGroups` and of a `MultiOptimizer` too."""
    inside = [optimizer.inner_optimizer] if hasattr(optimizer, "inner_optimizer") else []
    inside += getattr(optimizer, "group_optimizers", [])
    if is_multi_optimizer(optimizer):
        inside = list(optimizer.optimizers)
    return [optimizer, *(each for inner in inside for each in chain_of(inner))]


def core_of(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer inside all wrappers, Keras's loss scaling included."""
    while isinstance(optimizer, OptimizerWrapper | keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer


def skip_all_reduce(optimizer: keras.optimizers.Optimizer) -> None:
    """Makes an optimizer, and all below it, take its gradients as already summed over the replicas."""
    for each in chain_of(optimizer):
        each._all_reduce_sum_gradients = list


def moves_weights(wrapper: OptimizerWrapper) -> None:
    """Refuses an inner optimizer whose own average of the weights the wrapper would falsify."""
    kind = type(wrapper).__name__
    for each in chain_of(wrapper.inner_optimizer):
        if isinstance(each, RuleOptimizer) and each.derived_weights:
            raise ValueError(
                f"`{kind}` must not wrap an optimizer that derives the weights from its state. "
                f"Received: optimizer={type(each).__name__}. Use AdamW or SGD, or no wrapper."
            )
        if each.use_ema:
            raise ValueError(
                f"`{kind}` must not wrap an optimizer with `use_ema=True`, whose average would miss what the "
                "wrapper does. Use the callback `tfopt.callbacks.WeightAveraging`."
            )
