"""State of an optimizer: what a rule declares, and the variables made from it in Keras's order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from tfopt.optimizers._geometry import Geometry, from_shape


@dataclass(frozen=True)
class Slot:
    """State of one variable: its name, first value, shape, and place among the saved variables.

    `initial` is a number or a function of the variable's value, which must work on each element alone: the
    slot starts there again where the user sets the variable. `shape` makes the slot's shape from the
    `Geometry` of the variable; None means the same shape. `apart` slots follow the slots of all variables, as
    in Keras.
    A slot that `is_gradient` becomes the gradient itself after each step, which takes no copy.
    """

    name: str
    initial: float | Callable[[tf.Tensor], tf.Tensor] = 0.0
    shape: Callable[[Geometry], tuple[int, ...]] | None = None
    apart: bool = False
    is_gradient: bool = False


def slot_dtype(variable: Any) -> str:
    """Type of the state and of the arithmetic: that of the variable, but at least float32."""
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def is_overwritten(variable: Any) -> bool:
    """Whether the "gradient" of a variable is its next value, as Keras has it for the scales of float8."""
    return bool(getattr(variable, "overwrite_with_gradient", False))


def state_dtype(variables: Sequence[Any]) -> str:
    """Type of what all variables have in common: the widest of their slots."""
    dtypes = [slot_dtype(variable) for variable in variables] or [keras.backend.floatx()]
    return "float64" if "float64" in dtypes else dtypes[0]


def path_of(variable: Any) -> str:
    """Where a variable is in its model; TensorFlow's have a name only."""
    return variable.path if isinstance(variable, keras.Variable) else variable.name


def create_slots(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[Any],
    slots: Sequence[Slot],
    geometries: Sequence[Geometry] | None = None,
) -> list[list[keras.Variable]]:
    """The slots of every variable; created one variable after the other, `apart` slots at the end.

    As in Keras, variables that their gradient overwrites (the scales of float8 training) have none.
    """
    geometries = geometries or [from_shape(tuple(each.shape), each.name) for each in variables]
    together = [slot for slot in slots if not slot.apart]
    created: list[dict[str, keras.Variable]] = [{} for _ in variables]
    for group in [together, *([slot] for slot in slots if slot.apart)]:
        for variable, geometry, own in zip(variables, geometries, created):
            for slot in group if not is_overwritten(variable) else ():
                shape = slot.shape(geometry) if slot.shape else geometry.shape
                own[slot.name] = create_slot(
                    optimizer, variable, slot.name, _first_value(variable, slot.initial), shape
                )
    return [[own[slot.name] for slot in slots] if own else [] for own in created]


def create_state(
    optimizer: keras.optimizers.Optimizer, state: Mapping[str, float], dtype: str
) -> dict[str, keras.Variable]:
    """Scalars of the whole optimizer."""
    return {
        name: optimizer.add_variable((), _first_value(None, first), dtype=dtype, name=name)
        for name, first in state.items()
    }


def create_slot(
    optimizer: keras.optimizers.Optimizer,
    variable: Any,
    name: str,
    initializer: Callable[..., tf.Tensor],
    shape: tuple[int, ...] | None = None,
) -> keras.Variable:
    """One variable of state, on the devices of the variable it belongs to."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    with tf.distribute.get_strategy().extended.colocate_vars_with(value):
        return optimizer.add_variable(
            shape=tuple(variable.shape) if shape is None else shape,
            initializer=initializer,
            dtype=slot_dtype(variable),
            name=f"{path_of(variable).replace('/', '_').replace(':', '_')}_{name}",
        )


def _first_value(variable: Any, initial: Any) -> Callable[..., tf.Tensor]:
    def first_value(shape: Any, dtype: Any = None) -> tf.Tensor:
        if callable(initial) and not _is_initialized(variable):
            return tf.zeros(shape, dtype)  # the first step of every such rule overwrites it
        if callable(initial):
            return tf.cast(initial(tf.cast(tf.convert_to_tensor(variable), dtype)), dtype)
        return tf.constant(initial, dtype, shape)

    return first_value


def _is_initialized(variable: Any) -> bool:
    """False while the training step is traced that creates the variable: it gets its value afterwards."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    first = value.values[0] if hasattr(value, "values") else value  # of the first replica
    return bool(first.is_initialized())
