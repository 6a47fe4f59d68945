"""How a rule reaches one variable: by a fused TensorFlow kernel, compiled by XLA, or as plain operations.

Everything acts on resource handles of the current replica, so that no strategy has to switch context.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import tensorflow as tf

from tfopt._keras_internals import inside_xla
from tfopt.optimizers import _rows
from tfopt.optimizers._geometry import Geometry
from tfopt.optimizers._kernels import assign, read
from tfopt.optimizers._slots import slot_dtype

if TYPE_CHECKING:
    from tfopt.optimizers._rule import RuleOptimizer

Scalars = dict[str, Any]

# Compiling one shape takes about 40 ms; from this size on, a rule of ten operations earns that back
# within a few hundred steps.
XLA_ELEMENTS = 65_536


class Target(NamedTuple):
    """A variable and its slots, by their resource handles on this replica."""

    param: tf.Tensor
    slots: tuple[tf.Tensor, ...]
    dtype: str
    slot_dtype: str
    geometry: Geometry

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the variable."""
        return self.geometry.shape


def target_of(variable: Any, slots: list[keras.Variable], geometry: Geometry) -> Target:
    """The handles of a variable and its slots, valid on the current replica."""
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return Target(handle(variable), tuple(map(handle, slots)), dtype, slot_dtype(variable), geometry)


def handle(variable: Any) -> tf.Tensor:
    """Resource handle of a Keras or TensorFlow variable on the current replica."""
    return (variable.value if isinstance(variable, keras.Variable) else variable).handle


def values_of(target: Target) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
    """The variable in the type of the arithmetic, and its slots."""
    param = tf.cast(read(target.param, target.dtype), target.slot_dtype)
    return param, tuple(read(slot, target.slot_dtype) for slot in target.slots)


class Updater:
    """Applies the rule of one optimizer to all its variables."""

    def __init__(self, optimizer: RuleOptimizer):
        self.optimizer = optimizer
        self._compiled = tf.function(self._dense, jit_compile=True, autograph=False)

    def __call__(
        self,
        targets: list[Target],
        grads: list[Any],
        groups: list[tuple[float, float | None]],
        learning_rate: Any,
        step: tf.Tensor,
        state: dict[str, tf.Tensor],
        state_dtype: str,
    ) -> None:
        """One step. `groups`: learning rate multiplier, weight decay of each variable; `state`: handles."""

        def scalars_of(dtype: str, multiplier: float, decay: float | None) -> Scalars:
            rate = tf.cast(learning_rate, dtype) * multiplier
            scalars = self.optimizer.scalars(rate, tf.cast(step, dtype))
            if self.optimizer.decay_in_rule:
                return scalars | {"weight_decay": decay or 0.0}
            return scalars | {"shrink": 1 - rate * decay} if decay else scalars

        grads = [self._summed(grad, target) for grad, target in zip(grads, targets)]
        keys = [(target.slot_dtype, *group) for target, group in zip(targets, groups)]
        shared = {key: scalars_of(*key) for key in dict.fromkeys(keys)}
        if state:
            scalars = scalars_of(state_dtype, 1.0, None)
            further = self._reduce(targets, grads, scalars, state, state_dtype)
            for key, scalars in shared.items():
                scalars.update({name: tf.cast(value, key[0]) for name, value in further.items()})
        for target, grad, key in zip(targets, grads, keys):
            self._update(target, grad, shared[key])

    def _reduce(
        self,
        targets: list[Target],
        grads: list[Any],
        scalars: Scalars,
        state: dict[str, tf.Tensor],
        dtype: str,
    ) -> Scalars:
        def cast(values: Any) -> Any:
            return tf.nest.map_structure(lambda value: tf.cast(value, dtype), values)

        wanted = list(zip(targets, grads)) if self.optimizer.reduces_values else []
        dense = [tf.ensure_shape(_dense_gradient(grad, target), target.shape) for target, grad in wanted]
        values = [values_of(target) for target, _ in wanted]
        params, slots = [param for param, _ in values], [old for _, old in values]
        now = {name: read(resource, dtype) for name, resource in state.items()}
        further, new = self.optimizer.reduce(cast(params), cast(dense), cast(slots), scalars, now)
        for name, value in new.items():
            assign(state[name], value)
        return further

    def _update(self, target: Target, grad: Any, scalars: Scalars) -> None:
        """`scalars["shrink"]`, if it is there, is the factor of decoupled weight decay."""
        if isinstance(grad, tf.IndexedSlices):
            self._decay(target, scalars)
            self.optimizer.kernel(target.param, grad, target.slots, scalars)
            return
        if isinstance(grad, _rows.Rows) and self.optimizer.updates_rows:
            self._decay(target, scalars)
            self._rows(target, grad, scalars)
            return
        grad = _dense_gradient(grad, target)
        if not grad.shape.is_fully_defined():  # some gathers in a graph lose it; rules may ask for it
            grad = tf.ensure_shape(grad, target.shape)
        compiled = self._pays_to_compile(target)
        fused = self.optimizer.has_kernel and target.dtype == target.slot_dtype and not inside_xla()
        if fused and not (compiled and self.optimizer.several_passes):
            self._decay(target, scalars)
            self.optimizer.kernel(target.param, grad, target.slots, self._with_geometry(target, scalars))
            return
        update = self._compiled if compiled else self._dense
        update(target, grad, scalars)
        for slot, resource in zip(self.optimizer.slots, target.slots):
            if slot.is_gradient:
                assign(resource, tf.cast(grad, target.slot_dtype))

    def _summed(self, grad: Any, target: Target) -> Any:
        """Sparse gradients with the mentions of a row summed, unless they may come one by one."""
        one_by_one = self.optimizer.adds_rows and target.dtype == target.slot_dtype
        return _rows.from_slices(grad) if isinstance(grad, tf.IndexedSlices) and not one_by_one else grad

    def _pays_to_compile(self, target: Target) -> bool:
        large = math.prod(target.shape) >= XLA_ELEMENTS
        return large and not (self.optimizer.matrix_products or tf.executing_eagerly() or inside_xla())

    def _decay(self, target: Target, scalars: Scalars) -> None:
        if "shrink" in scalars:
            param = read(target.param, target.dtype)
            assign(target.param, param * tf.cast(scalars["shrink"], target.dtype))

    def _dense(self, target: Target, grad: tf.Tensor, scalars: Scalars) -> None:
        param, slots = values_of(target)
        if "shrink" in scalars:
            param = param * scalars["shrink"]
        scalars = self._with_geometry(target, scalars)
        new, new_slots = self.optimizer.rule(param, tf.cast(grad, target.slot_dtype), slots, scalars)
        assign(target.param, tf.cast(new, target.dtype))
        for slot, resource, value in zip(self.optimizer.slots, target.slots, new_slots, strict=True):
            if not slot.is_gradient:
                assign(resource, value)

    def _with_geometry(self, target: Target, scalars: Scalars) -> Scalars:
        return scalars | {"geometry": target.geometry} if self.optimizer.uses_geometry else scalars

    def _rows(self, target: Target, rows: _rows.Rows, scalars: Scalars) -> None:
        def gather(resource: tf.Tensor, dtype: str) -> tf.Tensor:
            return tf.raw_ops.ResourceGather(resource=resource, indices=rows.indices, dtype=dtype)

        def scatter(resource: tf.Tensor, values: tf.Tensor) -> None:
            tf.raw_ops.ResourceScatterUpdate(resource=resource, indices=rows.indices, updates=values)

        param = tf.cast(gather(target.param, target.dtype), target.slot_dtype)
        slots = tuple(gather(slot, target.slot_dtype) for slot in target.slots)
        grad = tf.cast(rows.values, target.slot_dtype)
        new, new_slots = self.optimizer.rule(param, grad, slots, scalars)
        scatter(target.param, tf.cast(new, target.dtype))
        for slot, value in zip(target.slots, new_slots, strict=True):
            scatter(slot, value)


def _dense_gradient(grad: Any, target: Target) -> tf.Tensor:
    return _rows.to_dense(grad, target.shape) if isinstance(grad, _rows.Rows) else grad
