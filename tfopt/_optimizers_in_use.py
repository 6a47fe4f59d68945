"""Finds the optimizers that train a model; `model.optimizer` may be one that Keras made and nobody uses."""

from typing import Any

import keras


def optimizers_in_use(model: keras.Model) -> list[Any]:
    """The optimizers that train a model: the compiled one, and those that a subclassed model keeps itself.

    Keras compiles an RMSprop where none is given. It is left out if the model has optimizers of its own and
    no method of its class mentions `optimizer`. The parts of a wrapper or a `MultiOptimizer` belong to it.
    """
    attributes = [value for name, value in vars(model).items() if name != "optimizer"]
    own = [each for each in _optimizers_within(attributes) if each is not model.optimizer]
    outside = ("keras.", "tensorflow.", "builtins")
    classes = [part for part in type(model).__mro__ if not part.__module__.startswith(outside)]
    methods = [getattr(value, "__code__", None) for c in classes for value in vars(c).values()]
    mentioned = any("optimizer" in code.co_names for code in methods if code is not None)
    compiled = [] if model.optimizer is None or (own and not mentioned) else [model.optimizer]
    return list({id(each): each for each in [*compiled, *own]}.values())


def _optimizers_within(value: Any) -> list[Any]:
    """The optimizers among nested lists and dicts, as attributes of a model are."""
    if isinstance(value, keras.optimizers.Optimizer):
        return [value]
    if isinstance(value, (list, tuple, dict)):
        parts = value.values() if isinstance(value, dict) else value
        return [each for part in list(parts) for each in _optimizers_within(part)]
    return []
