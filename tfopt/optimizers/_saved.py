"""Saved states of optimizers: which fit, and what becomes of one that is loaded too early."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np


def has_no_variables(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether it was built on an empty list: loading a `.h5` file does, and so does a frozen model."""
    return optimizer.built and not optimizer._trainable_variables


def set_weights(optimizer: keras.optimizers.Optimizer, weights: Sequence[Any]) -> Sequence[Any] | None:
    """Writes all variables. Returns the weights if they wait for variables that are not there yet.

    Keras's own method knows nothing of an inner optimizer and drops what exceeds the variables.
    """
    if not optimizer.built:
        raise ValueError(
            "`set_weights` needs a built optimizer. Call `optimizer.build(model.trainable_variables)` first."
        )
    variables, weights = (
        optimizer.variables,
        [np.asarray(weight) for weight in weights],
    )  # those of h5py are lazy
    if len(weights) > len(variables) and has_no_variables(optimizer):
        for variable, weight in zip(optimizer._variables, weights):  # the number of updates and the rate
            variable.assign(weight)
        return weights
    if len(weights) != len(variables):
        raise ValueError(
            f"`weights` must have one array for each of the {len(variables)} variables of "
            f"`{optimizer.name}`. Received: {len(weights)} arrays."
        )
    for index, (variable, weight) in enumerate(zip(variables, weights)):
        if tuple(variable.shape) != tuple(weight.shape):
            raise ValueError(
                f"The weights do not fit `{optimizer.name}`: `{variable.name}` has shape "
                f"{tuple(variable.shape)}, array {index} has {tuple(weight.shape)}. Nothing was written."
            )
    for variable, weight in zip(variables, weights):
        variable.assign(weight)
    return None


def own_part(optimizer: keras.optimizers.Optimizer, store: Mapping[str, Any]) -> Mapping[str, Any]:
    """The end of a saved state if that fits: then the rest is of a wrapper that is no longer there.

    `compile` puts Keras's `LossScaleOptimizer` around an optimizer where the global policy is mixed_float16,
    and saves it with the model as if there were only the optimizer.
    """
    variables = optimizer.variables
    others = len(store.keys()) - len(variables)
    if others <= 0 or not optimizer.built:
        return store
    own = {str(index): store[str(index + others)] for index in range(len(variables))}
    fits = all(tuple(own[str(i)].shape) == tuple(variable.shape) for i, variable in enumerate(variables))
    return own if fits else store


def holds_state(optimizer: keras.optimizers.Optimizer, store: Mapping[str, Any]) -> bool:
    """Whether a saved state fits: as many arrays as variables, each of the right shape.

    False for one that was saved before the optimizer was built: it holds what every new one starts with; and
    for an empty one, of a file that holds the weights of a model only.
    False, with a warning, if this optimizer is not built and has no place for it.
    """
    variables = optimizer.variables
    if len(store.keys()) == 0 and variables:  # weights of a model that was saved without an optimizer
        return False
    if has_no_variables(optimizer):
        return len(store.keys()) == len(variables)
    if len(store.keys()) < len(variables) and not np.any(store["0"]):  # the number of updates
        new = type(optimizer).from_config(optimizer.get_config())
        if len(store.keys()) == len(new.variables):
            return False
    if not optimizer.built and len(store.keys()) != len(variables):
        # As Keras has it: `load_weights` is mostly called for the weights of the model.
        warnings.warn(
            f"The saved state of `{optimizer.name}` was not loaded, because it is not built. To train on "
            "from it, call `optimizer.build(model.trainable_variables)` first.",
            stacklevel=3,
        )
        return False
    if len(store.keys()) != len(variables):
        raise ValueError(
            f"The saved state holds {len(store.keys())} arrays, but `{optimizer.name}` has {len(variables)} "
            "variables. It was saved by another optimizer or with other options."
        )
    for index, variable in enumerate(variables):
        shape = tuple(store[str(index)].shape)
        if shape != tuple(variable.shape):
            raise ValueError(
                f"The saved state does not fit `{optimizer.name}`: `{variable.name}` has shape "
                f"{tuple(variable.shape)}, the saved array {index} has {shape}. Nothing was loaded."
            )
    return True
