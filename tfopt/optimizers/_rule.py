"""The shell of every optimizer: state, dtypes, clipping, weight decay, EMA, strategies. Rules are pure.

A subclass states its slots and its `rule`; this class creates the slots in Keras's order, sums the
gradients over the replicas once, clips the sum, decays the weights, and applies the rule by a fused
kernel, by XLA or as plain operations. One of the three files that use private Keras names; here they
are the hooks between `apply` and the backend: `_backend_apply_gradients`, `_all_reduce_sum_gradients`,
`_get_variable_index`, `_use_weight_decay`, `_iterations`, `_trainable_variables`,
`_model_variables_moving_average` and `_overwrite_model_variables_with_average_value`.
"""

import abc
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers import _arguments, _clipping, _ema, _rows, _saved
from tfopt.optimizers._assigned import Followers
from tfopt.optimizers._kernel_table import geometries
from tfopt.optimizers._slots import Slot, create_slot, create_slots, create_state, path_of, state_dtype
from tfopt.optimizers._update import Scalars, Updater, handle, target_of

Tensors = tuple[tf.Tensor, ...]


class RuleOptimizer(keras.optimizers.Optimizer, abc.ABC):
    """Base of all tfopt optimizers that are a pure update rule.

    Args:
        learning_rate: Float >= 0 or a `keras.optimizers.schedules.LearningRateSchedule`.
        weight_decay: Float >= 0 or None. Before each step: `w -= learning_rate * weight_decay * w`.
        clipnorm: Float > 0 or None. Largest norm of the gradient of one variable.
        clipvalue: Float > 0 or None. Largest absolute value of a gradient element.
        global_clipnorm: Float > 0 or None. Largest norm of all gradients together. All three clip the
            sum over the replicas (Keras clips each replica's part before the sum).
        use_ema: Whether to keep an exponential moving average of the weights.
        ema_momentum: Float in [0, 1]. Share of the old average that stays.
        ema_overwrite_frequency: Int >= 1 or None, in steps. How often the average replaces the weights.
        loss_scale_factor: Float > 0 or None. The loss is multiplied, the gradients divided by it.
        gradient_accumulation_steps: None. Use `tfopt.optimizers.GradientAccumulation` instead.
        undecayed: Indices of the variables without weight decay, or before `build` a dictionary of `names`
            (patterns) and `paths`: what `exclude_from_weight_decay` said, stored so that a saved or copied
            optimizer keeps it.
        name: String or None.
    """

    reduces_values: bool = False  # `reduce` uses params, grads and slots, not only scalars and state
    matrix_products: bool = False  # the rule is left to TensorFlow's kernels: XLA's products are slow on CPU
    decay_in_rule: bool = False  # the rule uses scalars["weight_decay"] itself
    derived_weights: bool = False  # the variables follow from the slots: no wrapper may move them
    uses_geometry: bool = False  # the rule finds scalars["geometry"]: what the axes of the variable mean
    restarts: tuple[str, ...] = ()  # names in `state` that start anew where the user sets all weights

    def __init__(
        self,
        learning_rate: Any,
        *,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: None = None,
        undecayed: Sequence[int] | Mapping[str, Sequence[str]] | None = None,
        name: str | None = None,
    ):
        _arguments.no_accumulation(gradient_accumulation_steps)
        super().__init__(
            learning_rate=_arguments.learning_rate(learning_rate),
            weight_decay=_arguments.optional("weight_decay", weight_decay, _arguments.not_negative),
            clipnorm=_arguments.optional("clipnorm", clipnorm, _arguments.positive),
            clipvalue=_arguments.optional("clipvalue", clipvalue, _arguments.positive),
            global_clipnorm=_arguments.optional("global_clipnorm", global_clipnorm, _arguments.positive),
            use_ema=use_ema,
            ema_momentum=_arguments.share("ema_momentum", ema_momentum),
            ema_overwrite_frequency=_arguments.optional(
                "ema_overwrite_frequency", ema_overwrite_frequency, _arguments.period
            ),
            loss_scale_factor=_arguments.optional(
                "loss_scale_factor", loss_scale_factor, _arguments.positive
            ),
            name=name,
        )
        self.undecayed: tuple[int, ...] | None = None
        self._excluded: dict[str, list[str]] = {}
        if undecayed is not None and not isinstance(undecayed, Mapping):
            self.undecayed = tuple(undecayed)
        elif undecayed is not None:
            self.exclude_from_weight_decay(var_names=undecayed.get("names"))
            self._excluded = {key: list(undecayed.get(key) or ()) for key in ("names", "paths")}
        self._updater = Updater(self)
        self._waiting: Sequence[Any] | None = None
        self._followers: Followers | None = None

    @property
    def slots(self) -> Sequence[Slot]:
        """State of each variable. Most subclasses set a tuple in the class instead."""
        return ()

    @property
    def state(self) -> Mapping[str, float]:
        """Scalars of the whole optimizer: name and first value."""
        return {}

    @property
    def has_kernel(self) -> bool:
        """Whether `kernel` replaces the rule. Most subclasses set this in the class instead."""
        return False

    @property
    def several_passes(self) -> bool:
        """Whether `kernel` reads a variable so often that the compiled rule is faster on a large one."""
        return False

    @property
    def adds_rows(self) -> bool:
        """Whether `kernel` takes sparse gradients: then the mentions of a row are applied one by one."""
        return False

    @property
    def updates_rows(self) -> bool:
        """Whether the rows of an embedding that have no gradient stay as they are."""
        return False

    @abc.abstractmethod
    def rule(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> Any:
        """The paper's update: returns the new value and a tuple of new slots. Pure, keeps dtypes."""

    def scalars(self, learning_rate: tf.Tensor, step: tf.Tensor) -> Scalars:
        """What depends on the step only, computed once per update; `step` is 1 at the first one."""
        return {"learning_rate": learning_rate}

    def reduce(self, params: list, grads: list, slots: list, scalars: Scalars, state: Scalars) -> Any:
        """Quantities of all variables together: returns further scalars and the new `state`."""
        return {}, state

    def kernel(self, param: tf.Tensor, grad: tf.Tensor, slots: Tensors, scalars: Scalars) -> None:
        """The rule as TensorFlow kernels on resource handles, used if `has_kernel` is true."""

    def average_values(self, variables: Sequence[Any]) -> list[tf.Tensor] | None:
        """The weights to evaluate and save with, or None if those are the variables themselves.

        The protocol of weight averaging, which wrappers forward. Nothing is written here: whoever wants
        the average keeps the current values, assigns these, and puts the kept ones back afterwards.
        """
        return ema_values(self, variables)

    @tf.autograph.experimental.do_not_convert
    def build(self, variables: Sequence[Any]) -> None:
        """Creates the state, outside of any graph: `fit` builds while it traces the training step."""
        if self.built and not _saved.has_no_variables(self):
            return
        if variables:
            _arguments.check_indices("undecayed", self.undecayed or (), len(variables))
        with tf.init_scope():
            super().build(variables)
            if not variables:
                return
            self._geometries = geometries(variables, ask_layers=self.uses_geometry)
            self._slots = create_slots(self, variables, self.slots, self._geometries)
            self._state_dtype = state_dtype(variables)
            self._state = create_state(self, self.state, self._state_dtype)
            self._followers = self._create_followers(variables)
        if self.undecayed is None:
            paths = self._excluded.get("paths", ())
            self.undecayed = tuple(
                index
                for index, variable in enumerate(variables)
                if path_of(variable) in paths or not self._use_weight_decay(variable)
            )
        decays = [None if i in self.undecayed else self.weight_decay for i in range(len(variables))]
        self.set_groups([(1.0, decay) for decay in decays])
        if self._waiting:  # weights that a `.h5` file held for variables which only `fit` brings
            with tf.init_scope():
                self.set_weights(self._waiting)

    def _create_followers(self, variables: Sequence[Any]) -> Followers | None:
        averages = self._model_variables_moving_average if self.use_ema else [None] * len(variables)
        states: list[list[Any]] = []
        for own, average in zip(self._slots, averages):
            states.append(
                [(state, slot.initial) for slot, state in zip(self.slots, own) if callable(slot.initial)]
            )
            states[-1] += [] if average is None else [(average, tf.identity)]
        common = [(self._state[name], self.state[name]) for name in self.restarts]
        return Followers(self._iterations, variables, states, common) if any(states) else None

    def set_groups(self, groups: Sequence[tuple[float, float | None]]) -> None:
        """Sets (learning rate multiplier, weight decay) of every variable. Used by `ParameterGroups`."""
        self._groups = tuple(groups)

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """As in Keras, but kept by a saved optimizer, and refused after `build` (too late in Keras too)."""
        if self.built:
            raise ValueError("`exclude_from_weight_decay` must be called before the optimizer is built.")
        super().exclude_from_weight_decay(var_list, var_names)
        paths = [path_of(variable) for variable in var_list or ()]
        self._excluded = {"names": list(var_names or ()), "paths": paths}

    @tf.autograph.experimental.do_not_convert  # in a user's own step too: nothing here needs it
    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        """Updates the variables; `grads` are those of this replica, one per variable or None."""
        _arguments.check_context()
        if self.built or trainable_variables is not None:  # else Keras raises its own error
            known = trainable_variables is None
            trainable_variables = list(self._trainable_variables if known else trainable_variables)
            grads = _arguments.as_tensors(grads, trainable_variables)
            if _saved.has_no_variables(self):
                self.build(trainable_variables)
        if self.loss_scale_factor is not None:  # Keras divides by it, which slices cannot
            grads = [tf.convert_to_tensor(g) if isinstance(g, tf.IndexedSlices) else g for g in grads]
        # At the end of a dataset of unknown length, Keras runs the step once more without data: what
        # does not depend on a gradient would then count an iteration and decay the weights.
        updating = self._followers.updating() if self._followers else contextlib.nullcontext()
        with updating, tf.control_dependencies([_rows.gate(grads)]):
            super().apply(grads, trainable_variables)

    def _backend_apply_gradients(self, grads: Sequence[Any], trainable_variables: Sequence[Any]) -> None:
        _arguments.check_shapes(grads, trainable_variables)
        pairs = self._all_reduce_sum_gradients(list(zip(grads, trainable_variables)))
        indices = [self._get_variable_index(v) for v in trainable_variables]
        self._updater(
            [target_of(v, self._slots[i], self._geometries[i]) for v, i in zip(trainable_variables, indices)],
            _clipping.clipped(self, [grad for grad, _ in pairs]),
            [self._groups[i] for i in indices],
            self.learning_rate,
            self._iterations + 1,
            {name: handle(variable) for name, variable in self._state.items()},
            self._state_dtype,
        )
        if self.use_ema:
            pairs = list(zip(self._trainable_variables, self._model_variables_moving_average))
            _ema.update(pairs, self._iterations, self.ema_momentum, self.ema_overwrite_frequency)

    def _all_reduce_sum_gradients(self, grads_and_vars: list) -> list:
        if tf.distribute.get_strategy().num_replicas_in_sync == 1:
            return grads_and_vars
        return super()._all_reduce_sum_gradients(grads_and_vars)

    def add_variable_from_reference(
        self, reference_variable: Any, name: str | None = None, initializer: Any = "zeros"
    ) -> keras.Variable:
        """As in Keras, but at least float32: an average of bfloat16 weights would stand still in bfloat16."""
        first = keras.initializers.get(initializer)
        return create_slot(self, reference_variable, name or "var", first)

    @property
    def learning_rate(self) -> Any:
        """The rate of the next step. Set to a number or a schedule; a bad one changes nothing."""
        return super().learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        keras.optimizers.Optimizer.learning_rate.fset(self, _arguments.new_learning_rate(learning_rate))

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets all of `variables`; what a `.h5` file holds waits for the variables of the first `fit`."""
        self._waiting = _saved.set_weights(self, weights)

    def load_own_variables(self, store: Any) -> None:
        """Loads a saved state, of the same Keras optimizer too; one that does not fit changes nothing."""
        store = _saved.own_part(self, store)
        if _saved.holds_state(self, store):
            super().load_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        """Every argument of the constructor under its own name, as Keras has it."""
        config = super().get_config()
        del config["gradient_accumulation_steps"]
        if self.undecayed:
            config["undecayed"] = list(self.undecayed)
        elif self.undecayed is None and any(self._excluded.values()):
            config["undecayed"] = self._excluded
        return config | _arguments.own_config(self, config)


def ema_values(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> list[tf.Tensor] | None:
    """The averages that `use_ema=True` keeps, of any Keras optimizer; None without it."""
    if not optimizer.use_ema:
        return None
    averages = optimizer._model_variables_moving_average
    pairs = [(variable, averages[optimizer._get_variable_index(variable)]) for variable in variables]
    return [tf.convert_to_tensor(variable if own is None else own) for variable, own in pairs]
