"""Finds the optimizers that train a model; `model.optimizer` may be one that Keras made and nobody uses."""

import dis
from collections.abc import Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any

import keras

_OUTSIDE = ("keras.", "tfopt.", "tensorflow.", "tf_keras.", "numpy.", "builtins", "collections")
_STEPS = ("train_step", "make_train_function", "fit")  # a model that overrides none trains by `optimizer`


def optimizers_in_use(model: keras.Model) -> dict[str, Any]:
    """The optimizers that train a model in `fit`, by name.

    "optimizer" is the compiled one; another has the path of the attribute that holds it: "g_opt", "opts.a",
    or "critic.optimizer" for that of a compiled part. Keras compiles an RMSprop where none is given: it is
    left out if the methods of the model do not read `self.optimizer` and there are others. The parts of a
    wrapper or a `MultiOptimizer` belong to it.
    """
    given = getattr(model, "optimizer", None)  # not there before `compile`
    compiled = {} if given is None else {"optimizer": given}
    functions = list(_own_functions(model))
    if not any(function.__name__ in _STEPS for function in functions):
        return compiled
    names, readers = set(), set()
    for function in functions:
        names |= set(_names(function.__code__))
        own_name = (*function.__code__.co_varnames, "self")[0]
        readers |= {"self" if name == own_name else name for name in _readers(function.__code__)}
    attributes = _attributes(model)
    own = dict(_within(attributes, "", set()))
    parts = {name: value.optimizer for name, value in attributes.items() if _is_compiled(value)}
    elsewhere = bool(readers - {"self", *attributes})  # as in a loop over the parts
    own |= {f"{name}.optimizer": each for name, each in parts.items() if elsewhere or name in readers}
    inherits = any(step in names for step in _STEPS)  # calls that of its base class
    found = {**(compiled if inherits or "self" in readers or not own else {}), **own}
    first = {id(each): name for name, each in reversed(found.items())}
    return {name: each for name, each in found.items() if first[id(each)] == name}


def _own_functions(model: keras.Model) -> Iterator[FunctionType]:
    """The methods of the user's classes, and the functions that these call."""
    classes = [each for each in type(model).__mro__ if not each.__module__.startswith(_OUTSIDE)]
    values = [*vars(model).values(), *(value for each in classes for value in vars(each).values())]
    waiting = [_function_of(value) for value in values]
    seen: set[int] = set()
    while waiting:
        function = waiting.pop()
        if function is None or id(function) in seen or (function.__module__ or "").startswith(_OUTSIDE):
            continue
        seen.add(id(function))
        yield function
        called = [function.__globals__.get(name) for name in _names(function.__code__)]
        waiting += [value for value in called if isinstance(value, FunctionType)]


def _function_of(value: Any) -> FunctionType | None:
    """The Python function inside a method, a property or a `tf.function`."""
    if isinstance(value, MethodType | staticmethod | classmethod):
        value = value.__func__
    value = getattr(value, "fget", None) or getattr(value, "python_function", value)
    return value if isinstance(value, FunctionType) else None


def _inner(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _inner(constant)


def _names(code: CodeType) -> list[str]:
    return [name for each in _inner(code) for name in each.co_names]


def _readers(code: CodeType) -> Iterator[str]:
    """The names of which `.optimizer` is read: a variable, or the attribute in front."""
    for each in _inner(code):
        last = ""
        for instruction in dis.get_instructions(each):
            is_attribute = instruction.opname in ("LOAD_ATTR", "LOAD_METHOD")
            if is_attribute and instruction.argval == "optimizer":
                yield last
            name = instruction.argval
            name = name[-1] if name and isinstance(name, tuple) else name  # of two variables loaded at once
            last = name if instruction.opname.startswith("LOAD_") and isinstance(name, str) else ""


def _attributes(value: Any) -> dict[str, Any]:
    """What the user's code has put into an object; Keras and TensorFlow keep lists of the same objects."""
    compiled = "optimizer" if isinstance(value, keras.Model) else None
    return {
        name: item
        for name, item in vars(value).items()
        if name not in (compiled, "_layers") and not name.startswith("_self_")
    }


def _is_compiled(value: Any) -> bool:
    return isinstance(value, keras.Model) and getattr(value, "optimizer", None) is not None


def _within(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The optimizers among nested lists, dicts and objects of the user's classes."""
    if isinstance(value, keras.optimizers.Optimizer):
        yield path, value
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict):
        items = [(str(name), item) for name, item in value.items()]
    elif isinstance(value, list | tuple):
        items = [(str(index), item) for index, item in enumerate(value)]
    elif hasattr(value, "__dict__") and not _is_foreign(value):
        items = list(_attributes(value).items())
    else:
        return
    for name, item in items:
        yield from _within(item, f"{path}.{name}" if path else name, seen)


def _is_foreign(value: Any) -> bool:
    """Whether an object is none of the user's classes, or stands for code."""
    return isinstance(value, type | FunctionType | MethodType) or type(value).__module__.startswith(_OUTSIDE)
