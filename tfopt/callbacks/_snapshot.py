"""Everything that decides how training goes on, as plain data: variables and the state of callbacks."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt import _keras_internals
from tfopt._optimizers_in_use import optimizers_in_use
from tfopt.callbacks._csv_rows import read_rows, write_rows
from tfopt.callbacks._state import StatefulCallback
from tfopt.optimizers._assigned import unobserved

_PLAIN = (bool, int, float, str, type(None))
# Keras flips the sign of `min_delta` when it first uses it, and would do so once more.
_NOT_STATE = ("params", "_model", "min_delta")
_FILE = "$file"  # of a `CSVLogger`, whose file is its state: never configuration


def variables_of(model: keras.Model, metrics: bool) -> list[Any]:
    """Weights, seeds of random layers, optimizer state with that of wrappers, and metrics if asked.

    Also `tf.Variable`s that are attributes of the model or trained by its optimizers: Keras lists none.
    """
    optimizers = optimizers_in_use(model).values()
    state = [variable for each in optimizers for variable in each.variables]
    trained = [variable for each in optimizers for variable in _keras_internals.trained_by(each)]
    every = [
        *model.variables,
        *state,
        *(model.metrics_variables if metrics else ()),
        *trained,
        *_plain_variables(model),
    ]
    return list({id(variable): variable for variable in every}.values())


def _plain_variables(model: keras.Model) -> list[tf.Variable]:
    """The `tf.Variable`s among the attributes of a model, and in lists and dicts of these."""
    found = []
    for value in vars(model).values():
        items = value.values() if isinstance(value, dict) else value
        items = items if isinstance(value, (dict, list, tuple)) else [value]
        found += [item for item in items if isinstance(item, tf.Variable)]
    return found


def read_variables(variables: list[keras.Variable], strategy: tf.distribute.Strategy) -> list[Any]:
    """The value of every variable; one per replica where they differ, as sums under way do."""
    values = []
    for variable in variables:
        parts = [
            np.asarray(part.numpy()) for part in strategy.experimental_local_results(_resource(variable))
        ]
        same = all(np.array_equal(part, parts[0]) for part in parts[1:])
        values.append(parts[:1] if same else parts)
    return values


def write_variables(
    variables: list[keras.Variable], values: list[Any], strategy: tf.distribute.Strategy
) -> None:
    """The inverse of `read_variables`; the state of optimizers comes from there, not from the new weights."""
    with unobserved():
        for variable, parts in zip(variables, values):
            targets = strategy.experimental_local_results(_resource(variable))
            for target, value in zip(targets, parts if len(parts) > 1 else parts * len(targets)):
                target.assign(value)


def _resource(variable: Any) -> Any:
    return variable.value if isinstance(variable, keras.Variable) else variable


def _description(variable: Any) -> tuple[str, tuple[int, ...], str]:
    """Path, shape and type."""
    path = variable.path if isinstance(variable, keras.Variable) else variable.name
    return path, tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype)


def first_not_finite(variables: list[keras.Variable], values: list[Any]) -> str | None:
    """The path of the first variable that holds NaN or infinity."""
    for variable, parts in zip(variables, values):
        path, _, dtype = _description(variable)
        if "float" in dtype and not all(np.isfinite(part).all() for part in parts):
            return path
    return None


def check_fit(
    variables: list[keras.Variable],
    values: list[Any],
    callbacks: list[keras.callbacks.Callback],
    states: list[list[Any]],
) -> None:
    """Refuses values of other variables and states of other callbacks.

    Raises:
        ValueError: Naming the first that does not fit.
    """
    if len(variables) != len(values):
        raise ValueError(f"It holds {len(values)} variables, the model and its optimizer {len(variables)}.")
    for variable, parts in zip(variables, values):
        path, *expected = _description(variable)
        found = [parts[0].shape, parts[0].dtype.name]
        if expected != found:
            raise ValueError(f"Its value for {path} is {tuple(found)}, the variable is {tuple(expected)}.")
    names, saved = [type(callback).__name__ for callback in callbacks], [name for name, _ in states]
    if names != saved:
        raise ValueError(f"It was made with the callbacks {saved}, now they are {names}.")


def check_steps(steps: list[Any], saved: list[Any]) -> None:
    """Refuses a place inside an epoch of other batches: it might lie behind the end, and nothing would train.

    Raises:
        ValueError: Naming both, as batches per epoch and per execution.
    """
    if steps != saved:
        raise ValueError(
            f"It was made inside an epoch of {saved[0]} batches, {saved[1]} per execution; "
            f"now there are {steps[0]}, {steps[1]} per execution."
        )


def read_callbacks(
    callbacks: list[keras.callbacks.Callback], first: list[list[Any]] | None = None
) -> list[list[Any]]:
    """Name and state of every callback: `get_state` if it has one, else the plain attributes.

    Args:
        callbacks: All but `Resume`.
        first: What this gave before the first epoch. Attributes that are the same since then are left out:
            they are the configuration, of which the script decides.
    """
    states: list[list[Any]] = [[type(callback).__name__, _state(callback)] for callback in callbacks]
    if first is None:
        return states
    stateful = [isinstance(callback, StatefulCallback) for callback in callbacks]
    return [
        [name, state if keep else {k: v for k, v in state.items() if not _is_same(k, v, old)}]
        for keep, (name, state), (_, old) in zip(stateful, states, first)
    ]


def write_callbacks(callbacks: list[keras.callbacks.Callback], states: list[list[Any]]) -> None:
    """The inverse of `read_callbacks`."""
    for callback, (_, state) in zip(callbacks, states):
        if isinstance(callback, StatefulCallback):
            callback.set_state(state)
            continue
        rows = state.get(_FILE)
        if rows is not None:
            write_rows(callback, rows.tobytes())
        vars(callback).update({name: value for name, value in state.items() if name != _FILE})
        if rows is not None:
            callback.append_header = rows.size == 0


def _state(callback: keras.callbacks.Callback) -> dict[str, Any]:
    if isinstance(callback, StatefulCallback):
        return _plain(callback.get_state())
    if isinstance(callback, keras.callbacks.ProgbarLogger):
        return {}
    attributes = {name: value for name, value in vars(callback).items() if name not in _NOT_STATE}
    state = {name: _plain(value) for name, value in attributes.items() if _is_plain(value)}
    return {**state, _FILE: read_rows(callback)} if isinstance(callback, keras.callbacks.CSVLogger) else state


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, (str, int)) and _is_plain(item) for key, item in value.items())
    return isinstance(value, (*_PLAIN, np.ndarray, np.generic))


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return value.copy()
    return value.item() if isinstance(value, np.generic) else value


def _is_same(name: str, value: Any, before: dict[str, Any]) -> bool:
    """Whether an attribute is as it was before the first epoch."""
    return name != _FILE and name in before and _equal(value, before[name])


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return type(a) is type(b) and np.array_equal(a, b)
    return bool(type(a) is type(b) and (a == b or (a != a and b != b)))
