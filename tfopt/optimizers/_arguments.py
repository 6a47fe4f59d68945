"""Checks of the arguments that every optimizer has, and of the gradients and states it is given."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt import _checks

Schedule = keras.optimizers.schedules.LearningRateSchedule


def learning_rate(value: Any) -> Any:
    """A float >= 0 or a schedule. Integers and callables are refused with the way out."""
    if isinstance(value, Schedule):
        return value
    expected = "a float >= 0 or a `keras.optimizers.schedules.LearningRateSchedule`"
    if callable(value):
        fix = "A callable would be read once, when training is traced. Use a schedule."
        fix = _checks.keras_2_fix(value) or fix
        raise TypeError(_checks.message("learning_rate", expected, value, fix))
    if isinstance(value, int) and not isinstance(value, bool):
        raise TypeError(_checks.message("learning_rate", expected, value, f"Write {value}.0."))
    return _checks.check_number("learning_rate", value, minimum=0)


def new_learning_rate(value: Any) -> Any:
    """A value to set later: an integer or a tensor will do, too; its value is checked if it is known."""
    if isinstance(value, Schedule) or tf.is_symbolic_tensor(value):
        return value
    is_array = isinstance(value, tf.Tensor | tf.Variable | keras.Variable | np.ndarray)
    number = float(keras.ops.convert_to_numpy(value)) if is_array else value
    return learning_rate(
        float(number) if isinstance(number, int) and not isinstance(number, bool) else number
    )


def optional(name: str, value: Any, check: Callable[[str, Any], float]) -> float | None:
    """None, or what the check gives."""
    return None if value is None else check(name, value)


def share(name: str, value: Any) -> float:
    """A number in [0, 1]."""
    return _checks.check_number(name, value, minimum=0, maximum=1)


def fraction(name: str, value: Any) -> float:
    """A number in [0, 1): the share of an old average that stays."""
    return _checks.check_number(name, value, minimum=0, maximum=1, open_maximum=True)


def positive(name: str, value: Any) -> float:
    """A number > 0."""
    return _checks.check_number(name, value, minimum=0, open_minimum=True)


def not_negative(name: str, value: Any) -> float:
    """A number >= 0."""
    return _checks.check_number(name, value, minimum=0)


def period(name: str, value: Any) -> int:
    """An integer >= 1, in steps."""
    return _checks.check_integer(name, value, minimum=1)


def check_indices(name: str, indices: Sequence[Any], count: int) -> None:
    """Each is an integer that counts from 0 and stays below `count`."""
    for index in indices:
        _checks.check_integer(name, index, minimum=0, maximum=count - 1, fix="It holds indices of variables.")


def no_accumulation(value: Any) -> None:
    """Keras's own accumulation is wrong under strategies; the wrapper replaces it."""
    if value is not None:
        fix = "Wrap the optimizer: tfopt.optimizers.GradientAccumulation(optimizer, steps)."
        raise ValueError(_checks.message("gradient_accumulation_steps", "None", value, fix))


def own_config(optimizer: keras.optimizers.Optimizer, base: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the optimizer's own constructor, each stored under its own name."""
    names = inspect.signature(type(optimizer).__init__).parameters
    skip = {*base, "self", "base_options", "gradient_accumulation_steps"}
    return {name: getattr(optimizer, name) for name in names if name not in skip}


def check_context() -> None:
    """`apply` works on the variables of one replica."""
    if tf.distribute.in_cross_replica_context():
        raise ValueError("`apply` must be called in a replica context. Call it inside `strategy.run(...)`.")


def as_tensors(grads: Sequence[Any], variables: Sequence[Any]) -> list[Any]:
    """Gradients in the type of their variables; None stays.

    Custom loops give numbers, NumPy arrays, and tensors of another float type. Keras casts them, but a fused
    kernel that meets another type ends the process.
    """
    grads = list(grads)
    if len(grads) != len(variables):
        raise ValueError(
            "There must be one gradient, or None, for each variable. "
            f"Received: {len(grads)} gradients for {len(variables)} variables."
        )
    return [
        grad
        if grad is None
        else _as_tensor(grad, tf.as_dtype(keras.backend.standardize_dtype(variable.dtype)))
        for grad, variable in zip(grads, variables)
    ]


def _as_tensor(grad: Any, dtype: tf.DType) -> Any:
    if isinstance(grad, tf.IndexedSlices):
        indices, shape = grad.indices, grad.dense_shape
        if not all(part is None or isinstance(part, tf.Tensor) for part in (indices, shape)):
            shape = None if shape is None else tf.convert_to_tensor(shape)  # Keras takes tuples, too
            grad = tf.IndexedSlices(grad.values, tf.convert_to_tensor(indices), shape)
        return grad if grad.dtype == dtype else tf.cast(grad, dtype)
    if isinstance(grad, tf.Tensor | tf.Variable | keras.Variable):
        return tf.cast(tf.convert_to_tensor(grad), dtype)
    return tf.convert_to_tensor(grad, dtype)


def check_shapes(grads: Sequence[Any], variables: Sequence[Any]) -> None:
    """Every gradient has the shape of its variable; checked before anything is written."""
    for grad, variable in zip(grads, variables, strict=True):
        if not grad.shape.is_compatible_with(variable.shape):
            raise ValueError(
                f"A gradient must have the shape of its variable. Received: shape={tuple(grad.shape)} "
                f"for `{variable.name}` of shape {tuple(variable.shape)}."
            )
