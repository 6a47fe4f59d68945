"""Private names of Keras and TensorFlow that tfopt needs, with the reason; a test watches each."""

import functools
import random
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule
from keras.src.random.seed_generator import global_seed_generator
from tensorflow.python.ops import control_flow_util

from tfopt._fit_data import batch_spec_of_fit
from tfopt._optimizers_in_use import optimizers_in_use

_OBSERVERS: Any = weakref.WeakKeyDictionary()  # model -> list of (before, after)
_HOOKS: Any = weakref.WeakKeyDictionary()  # optimizer -> (hooks of its reduction, [what they replaced])
_TRACED: Any = weakref.WeakKeyDictionary()  # training function -> the observers it was made with


def leaf_layers(model: keras.Model) -> list[keras.Layer]:
    """All layers below a model that hold no other layers, nested models and composite layers opened."""
    layers = model._flatten_layers(include_self=False)
    return [layer for layer in layers if not layer._flatten_layers(include_self=False)]


def sublayers(layer: keras.Layer) -> list[keras.Layer]:
    """The layers directly inside a layer or model; Keras has no public way for layers that are no models."""
    listed = list(layer.layers) if isinstance(layer, keras.Model) else []
    known = {id(each) for each in (*listed, functional(layer))}
    return listed + [each for each in layer._flatten_layers(False, False) if id(each) not in known]


def own_trainable(layer: keras.Layer) -> list[keras.Variable]:
    """Weights that a layer itself made trainable, frozen or not, without those of layers inside it."""
    return list(layer._trainable_variables)


def every_layer(model: keras.Model) -> list[keras.Layer]:
    """The model and all layers below it, nested models and composite layers included, each once."""
    return list({id(layer): layer for layer in model._flatten_layers()}.values())


def functional(model: keras.Model) -> keras.Model:
    """The Functional model inside a built Sequential one; any other model as it is."""
    return model._functional if isinstance(model, keras.Sequential) and model.built else model


def nodes(model: keras.Model) -> list:
    """The calls of a Functional model in the order in which they run; none for a subclassed model."""
    by_depth = getattr(functional(model), "_nodes_by_depth", {})
    return [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def mask_of(tensor: Any) -> Any:
    """The mask that Keras passes beside a symbolic tensor, or None. Layers may read it off the tensor."""
    return getattr(tensor, "_keras_mask", None)


def node_of(tensor: Any) -> Any:
    """The call that made a symbolic tensor."""
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]


def consumers(operation: Any) -> list[Any]:
    """The layers and operations that take what a layer or operation makes, in all models that have it."""
    return [node.operation for node in operation._outbound_nodes]


def lambda_output_shape(layer: keras.layers.Lambda) -> Any:
    """The argument `output_shape` of a Lambda layer; its config holds it only in serialized form."""
    return layer._output_shape


def learning_rate_schedule(optimizer: Any) -> LearningRateSchedule | None:
    """The schedule of an optimizer, wrapped or not; None for a numeric rate: Keras shows only its value."""
    rate = getattr(innermost(optimizer), "_learning_rate", None)
    return rate if isinstance(rate, LearningRateSchedule) else None


def innermost(optimizer: Any) -> Any:
    """The optimizer inside all wrappers (`LossScaleOptimizer` and tfopt's name it `inner_optimizer`)."""
    while getattr(optimizer, "inner_optimizer", None) is not None:
        optimizer = optimizer.inner_optimizer
    return optimizer


def innermost_of_all(optimizer: Any) -> list[Any]:
    """The optimizers inside all wrappers, those of the groups of `ParameterGroups` too."""
    inner = getattr(optimizer, "inner_optimizer", None)
    if inner is None:
        return [optimizer]
    every = [inner, *getattr(optimizer, "group_optimizers", [])]
    return [each for part in every for each in innermost_of_all(part)]


def is_multi_optimizer(optimizer: Any) -> bool:
    """Whether it is Keras's `MultiOptimizer`, which Keras before 3.15 does not have."""
    kind = getattr(keras.optimizers, "MultiOptimizer", None)
    return kind is not None and isinstance(optimizer, kind)


def observe_batches(
    model: keras.Model, before: Callable[[Any], None], after: Callable[[Any], None]
) -> Callable[[], None]:
    """Runs `before(data)` and `after(outputs)` in the graph around every training step, outside XLA.

    Keras shows no data to callbacks, and calls them once per `steps_per_execution`. The training function
    is made anew unless it has these observers already. Returns a function that ends the observation for
    training functions made later.
    """
    pair = (before, after)
    pairs = _OBSERVERS.setdefault(model, [])
    pairs.append(pair)
    model.make_train_function = functools.partial(_make_train_function, model, pairs)
    if pair not in _TRACED.get(model.train_function, ()):
        model.make_train_function(force=True)
    return functools.partial(_stop_observing, model, pairs, pair)


def _make_train_function(model: keras.Model, pairs: list, force: bool = False) -> None:
    if model.train_function is not None and not force:
        return
    convert = model._autoconvert_optionals  # the last wrapper around the step before the iterator's loop
    model._autoconvert_optionals = lambda step: _observed(convert(step), tuple(pairs))
    try:
        type(model).make_train_function(model, force=True)
    finally:
        del model._autoconvert_optionals
    _TRACED[model.train_function] = tuple(pairs)


def _observed(step: Callable[[Any], Any], pairs: tuple) -> Callable[[Any], Any]:
    def observed(data: Any) -> Any:
        for before, _ in pairs:
            before(data)
        outputs = step(data)
        for _, after in pairs:
            after(outputs)
        return outputs

    return observed


def _stop_observing(model: keras.Model, pairs: list, pair: tuple) -> None:
    pairs.remove(pair)
    if not pairs:
        vars(model).pop("make_train_function", None)


def observe_gradients(optimizer: Any, observer: Callable[[list, list], None]) -> Callable[[], None]:
    """Runs `observer(gradients, sums)` where an optimizer sums the gradients over the replicas.

    The only place where Keras has both, in replica context. Returns a function that ends it; a training
    function that was traced before notices neither.
    """

    def hook(gradients: list, pairs: list) -> list:
        observer(gradients, [grad for grad, _ in pairs])
        return pairs

    return _hook_gradients(optimizer, hook)


def change_gradients(
    optimizer: Any, variables: list[keras.Variable], change: Callable[[list], list]
) -> Callable[[], None]:
    """Replaces the summed gradients of some variables by `change(gradients)`, just before every update.

    Keras has no hook between gradient and update that a callback could reach. Ends as `observe_gradients`.
    """
    keys = [optimizer._var_key(variable) for variable in variables]

    def hook(gradients: list, pairs: list) -> list:
        places = {optimizer._var_key(variable): place for place, (_, variable) in enumerate(pairs)}
        chosen = [places[key] for key in keys]
        pairs = list(pairs)
        for place, grad in zip(chosen, change([pairs[place][0] for place in chosen])):
            pairs[place] = (grad, pairs[place][1])
        return pairs

    return _hook_gradients(optimizer, hook)


def _hook_gradients(optimizer: Any, hook: Callable[[list, list], list]) -> Callable[[], None]:
    """Hooks may end in any order."""
    if is_multi_optimizer(optimizer):
        raise TypeError("Gradients can be observed in one optimizer only. Received: a `MultiOptimizer`.")
    hooks, before = _HOOKS.setdefault(optimizer, ([], []))
    if not hooks:
        before[:] = [vars(optimizer).get("_all_reduce_sum_gradients")]  # tfopt's wrappers set one
        reduce = optimizer._all_reduce_sum_gradients
        optimizer._all_reduce_sum_gradients = functools.partial(_reduce_hooked, reduce, hooks)
    hooks.append(hook)
    return functools.partial(_unhook_gradients, optimizer, hook)


def _reduce_hooked(reduce: Callable[[list], Any], hooks: list, pairs: Any) -> list:
    pairs = list(pairs)
    gradients, pairs = [grad for grad, _ in pairs], list(reduce(pairs))
    for hook in hooks:
        pairs = hook(gradients, pairs)
    return pairs


def _unhook_gradients(optimizer: Any, hook: Callable[[list, list], list]) -> None:
    hooks, before = _HOOKS[optimizer]
    hooks.remove(hook)
    if not hooks:
        vars(optimizer).pop("_all_reduce_sum_gradients")
        if before[0] is not None:
            optimizer._all_reduce_sum_gradients = before[0]


def trained_by(optimizer: Any) -> list[Any]:
    """The variables that a built optimizer updates; Keras lists only those that it creates."""
    return list(getattr(optimizer, "_trainable_variables", ()))


def average_values(optimizer: Any, variables: list) -> list | None:
    """The optimizer's own average of the weights: tfopt's protocol, or Keras's `use_ema`; None without."""
    while optimizer is not None:
        own = getattr(optimizer, "average_values", None)
        values = None if own is None else own(variables)
        if own is None and optimizer.use_ema:
            averages = optimizer._model_variables_moving_average
            values = [averages[optimizer._get_variable_index(variable)] for variable in variables]
        if values is not None:
            return values
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return None


def begin_at_epoch(model: keras.Model, epoch: int | None) -> None:
    """Makes the running `fit` begin at an epoch: the way of Keras's own `BackupAndRestore`."""
    model._initial_epoch = epoch


def build_for_training(model: keras.Model, batch_spec: Any) -> None:
    """Creates all variables of model, optimizers and, if the form of a batch is given, metrics.

    Keras creates them while it traces the first step, too late to restore them.
    """
    unbuilt = [name for name, optimizer in optimizers_in_use(model).items() if not optimizer.built]
    own_step = type(model).train_step is not keras.Model.train_step
    layers = all(layer.built for layer in model._flatten_layers(include_self=not own_step))
    metrics = getattr(model, "_compile_metrics", None)
    if own_step and (not layers or set(unbuilt) - {"optimizer"} or (batch_spec and _is_unbuilt(metrics))):
        _build_in_step(model)
        return
    if batch_spec is not None and not own_step:
        model._symbolic_build(data_batch=tf.nest.map_structure(_symbolic, batch_spec))
    if not own_step and not model.built:
        raise ValueError(f"`{model.name}` must be built before training. Call it on a batch of data first.")
    if unbuilt and not model.optimizer.built:  # Keras's `LossScaleOptimizer` would be built twice
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)


def _is_unbuilt(metrics: Any) -> bool:
    return metrics is not None and not metrics.built


def _build_in_step(model: keras.Model) -> None:
    """Traces one step without running it: only the step knows which optimizer trains which variables."""
    spec, strategy = batch_spec_of_fit(), model.distribute_strategy
    if spec is not None:
        tf.function(lambda batch: strategy.run(model.train_step, args=(batch,))).get_concrete_function(spec)
    left = [name for name, optimizer in optimizers_in_use(model).items() if not optimizer.built]
    if left == ["optimizer"]:  # the step does not use it: its state means nothing
        with strategy.scope():
            model.optimizer.build(model.trainable_variables)
    elif left:
        raise ValueError(
            f"The optimizers {left} of `{model.name}` must be built before training. Call "
            "`optimizer.build(variables)` for each with the variables that it trains."
        )


def _symbolic(spec: Any) -> keras.KerasTensor | None:
    one = getattr(spec, "_value_specs", (spec,))[0]  # a batch of several replicas has one for each
    if isinstance(one, tf.OptionalSpec):  # Keras's form of None within a batch
        return None
    sparse, ragged = isinstance(one, tf.SparseTensorSpec), isinstance(one, tf.RaggedTensorSpec)
    return keras.KerasTensor(tuple(one.shape), one.dtype.name, sparse=sparse, ragged=ragged)


def track_loss(model: keras.Model, loss: Any, samples: Any) -> None:
    """Counts a batch in the loss that `fit` shows; a `train_step` of one's own has no public way to."""
    model._loss_tracker.update_state(loss, sample_weight=samples)


def set_mask(tensor: Any, mask: Any) -> None:
    """Passes a mask beside a tensor; beside losses, it says which of them count (`ignore_class`)."""
    tensor._keras_mask = mask


def compiled_metrics(model: keras.Model) -> list[keras.Metric]:
    """All metric objects of a model. Keras shows those of `compile` only after the first step was traced."""
    given = tf.nest.flatten(getattr(getattr(model, "_compile_metrics", None), "_user_metrics", None))
    return [metric for metric in [*given, *model.metrics] if isinstance(metric, keras.Metric)]


def random_state() -> tuple[Any, ...]:
    """What Python, NumPy and Keras draw from outside of layers; Keras has no public way to its own."""
    return random.getstate(), np.random.get_state(), keras.ops.copy(global_seed_generator().state)


def set_random_state(state: tuple[Any, ...]) -> None:
    """The inverse of `random_state`."""
    python, numpy, seed = state
    random.setstate(python)
    np.random.set_state(numpy)
    global_seed_generator().state.assign(seed)


def inside_xla() -> bool:
    """Whether XLA compiles what is being traced: TensorFlow has no public way to ask."""
    return bool(control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


def know(optimizers: list[Any], variables: list[keras.Variable]) -> bool:
    """Whether built optimizers were built on all of these variables; Keras only fails when they update."""
    known = {id(variable) for optimizer in optimizers for variable in trained_by(optimizer)}
    return {id(variable) for variable in variables} <= known
