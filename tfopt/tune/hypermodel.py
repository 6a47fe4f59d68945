"""`HyperModelJob`: a `HyperModel` of keras-tuner as the space and the training function of `search`."""

import copy
import logging
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import keras

from tfopt._checks import message
from tfopt._optional import require
from tfopt.tune.objective import Objective
from tfopt.tune.space import Range, Space, When

_logger = logging.getLogger(__name__)


@final
class HyperModelJob:
    """Trains a user's own `keras_tuner.HyperModel`, for any task, in `search`.

    Give it as `evaluate`; the space is what `build` declares, `conditional_scope` included. As in
    keras-tuner, a trial is worth its best epoch, `fit` of the hypermodel is called if it has one, and what
    that returns may be a `History`, a dictionary of metrics or one number.

    Args:
        hypermodel: A `keras_tuner.HyperModel`, or a function from `HyperParameters` to a compiled model.
        *fit_args: What `fit` gets, such as x and y.
        objective: The metric whose best epoch counts. Give the same to `search`.
        **fit_options: Other arguments of `fit`, such as `validation_data`. With the tuner "hyperband",
            `epochs` is that of the tuner.

    Raises:
        ValueError: If `build` declares no hyperparameter.

    Example:
        >>> def build(hp):
        ...     hidden = keras.layers.Dense(hp.Choice("units", [2, 4]))
        ...     model = keras.Sequential([hidden, keras.layers.Dense(1)])
        ...     model.compile("sgd", "mse")
        ...     return model
        >>> job = HyperModelJob(build, np.ones((8, 2)), np.ones(8), objective="loss", verbose=0)
        >>> job.space
        {'units': [2, 4]}
    """

    def __init__(
        self, hypermodel: Any, *fit_args: Any, objective: str | Objective, **fit_options: Any
    ) -> None:
        tuner = require("keras_tuner", "`HyperModelJob`")
        self.objective = Objective(objective) if isinstance(objective, str) else objective
        self._build: Callable[[Any], Any] = getattr(hypermodel, "build", hypermodel)
        self._fit: Callable[..., Any] = getattr(hypermodel, "fit", _fit)
        self._arguments, self._options = fit_args, fit_options
        self._declared = _declared(self._build, tuner.HyperParameters())
        if not self._declared.space:
            raise ValueError(message("hypermodel", "one whose `build` declares hyperparameters", hypermodel))
        self.space: Space = _space(self._declared.space)

    def __call__(self, values: Mapping[str, Any], epochs: int | None) -> dict[str, float]:
        """Builds and trains the model with these values; returns its metrics."""
        chosen = self._declared.copy()
        chosen.values = {name: value for name, value in values.items() if value is not None}
        options = self._options if epochs is None else {**self._options, "epochs": epochs}
        if "callbacks" in options:
            options = {**options, "callbacks": copy.deepcopy(options["callbacks"])}  # each trial has its own
        found = self._fit(chosen, self._build(chosen), *self._arguments, **options)
        fixed = sorted({each.name for each in chosen.space} - set(values))
        if fixed:
            _logger.warning(
                "Not searched, as `build` does not declare: %s. Add to `space`: {**job.space, ...}.",
                ", ".join(fixed),
            )
        return self._metrics(found)

    def _metrics(self, found: Any) -> dict[str, float]:
        name, direction = self.objective.metric, self.objective.direction
        if isinstance(found, keras.callbacks.History):
            if name not in found.history:
                expected = "one of the metrics of `fit`: " + ", ".join(sorted(found.history))
                raise ValueError(message("objective", expected, name))
            curve = found.history[name]
            finite = [i for i, value in enumerate(curve) if math.isfinite(value)] or [0]
            best = (min if direction == "min" else max)(finite, key=curve.__getitem__)
            return {
                metric: float(values[best]) for metric, values in found.history.items() if len(values) > best
            }
        if isinstance(found, Mapping):
            return {metric: float(value) for metric, value in found.items()}
        if isinstance(found, numbers.Real):
            return {name: float(found)}
        expected = "a History, a dictionary of metrics or a number from `fit` of the hypermodel"
        raise ValueError(message("hypermodel", expected, found))


def _fit(hyperparameters: Any, model: keras.Model, *arguments: Any, **options: Any) -> Any:
    return model.fit(*arguments, **options)


def _declared(build: Callable[[Any], Any], known: Any) -> Any:
    """All hyperparameters of `build`: it runs until every `conditional_scope` has been active once."""
    waiting: list[dict[str, Any]] = [{}]
    seen: list[Any] = []
    while waiting:
        hyperparameters = known.copy()
        hyperparameters.values = waiting.pop()
        hyperparameters.ensure_active_values()
        build(hyperparameters)
        known.merge(hyperparameters, overwrite=False)
        seen += [scope for scope in map(list, hyperparameters.active_scopes) if scope not in seen]
        for scope in map(list, hyperparameters.inactive_scopes):
            if scope not in seen:
                seen.append(scope)
                waiting.append({condition.name: condition.values[0] for condition in scope})
    return known


def _space(declared: Sequence[Any]) -> dict[str, Any]:
    """The hyperparameters of keras-tuner as our space."""
    space: dict[str, Any] = {}
    conditions: dict[str, list[Any]] = {}
    for each in declared:
        if each.name in space:
            fix = "Give the two hyperparameters names of their own."
            raise ValueError(message("hypermodel", "with one condition for each name", each.name, fix))
        conditions[each.name] = list(each.conditions)
        space[each.name] = _domain(each)
        if each.conditions:
            last = each.conditions[-1]
            if conditions.get(last.name) != conditions[each.name][:-1]:
                fix = "Let the second condition be a hyperparameter that itself depends on the first one."
                expected = "with conditions that depend on one another"
                raise ValueError(message("hypermodel", expected, each.name, fix))
            space[each.name] = When(space[each.name], **{last.name: list(last.values)})
    return space


def _domain(each: Any) -> Range | list[Any]:
    config, kind = each.get_config(), type(each).__name__
    if kind == "Choice":
        return list(each.values)
    if kind == "Boolean":
        return [False, True]
    if kind == "Fixed":
        return [each.value]
    low, high, sampling = config["min_value"], config["max_value"], config["sampling"]
    any_step = config["step"] is None or (kind == "Int" and config["step"] == 1)
    if any_step and low < high and sampling != "reverse_log":
        return Range(low, high, log=sampling == "log")
    return sorted(each.values)


def space_of(evaluate: Any, space: Space | None) -> Space | None:
    """The given space, or that of a `HyperModelJob`."""
    if not callable(evaluate):
        fix = "A HyperModel becomes one by tfopt.tune.HyperModelJob(hypermodel, x, y, objective=...)."
        raise TypeError(message("evaluate", "a function (values, epochs) -> metrics", evaluate, fix))
    return evaluate.space if space is None and isinstance(evaluate, HyperModelJob) else space
