"""Gradient accumulation: one update from the mean gradient of several batches."""

from typing import Any

import keras
import tensorflow as tf

from tfopt import _checks
from tfopt.optimizers._kernels import assign, read
from tfopt.optimizers._slots import create_slot, is_overwritten
from tfopt.optimizers._untouched import update_touched
from tfopt.optimizers._update import handle
from tfopt.optimizers._wrapper import OptimizerWrapper, chain_of, refuse_inside, skip_all_reduce
from tfopt.optimizers.lazy_adam import LazyAdam
from tfopt.schedules.batch_size import BatchSizeSchedule


@keras.saving.register_keras_serializable(package="tfopt")
class GradientAccumulation(OptimizerWrapper):
    """Updates with the mean gradient of several batches, exactly as one big batch would.

    For batches larger than the memory, and for batch sizes that grow during training. Every `steps`
    calls the inner optimizer makes one ordinary update: learning rate schedules, `iterations`, EMA and
    weight decay count updates. It equals the big batch if all batches have the same size (use
    `drop_remainder`) and the model has no batch statistics. A variable that has no gradient in some of the
    calls, as a head that is trained in turns, takes part with the mean over all calls; one that has none in
    the whole cycle stays as it is.

        accumulator = accumulator + g                     (every call, on each replica)
        inner update with sum of accumulators / steps     (every `steps` calls)

    Memory: 1 slot. Cost: one addition per call; replicas communicate once per update.

    Args:
        optimizer: The Keras optimizer to wrap.
        steps: Int >= 1, calls per update, or a batch-size schedule such as `tfopt.schedules.LinearRamp`,
            asked by samples seen before each update.
        micro_batch_size: Int >= 1. Samples per call over all replicas, which is the batch size that
            `fit` gets. Needed with a schedule, whose sizes must be multiples of it.
        **base_options: `name`.

    Raises:
        TypeError: If `optimizer` is not a Keras optimizer or a number not an integer.
        ValueError: If a number is out of its bounds, a size no multiple of `micro_batch_size`, or the inner
            optimizer `LazyAdam`, which lives of sparse gradients.

    Example:
        >>> optimizer = tfopt.optimizers.GradientAccumulation(keras.optimizers.SGD(0.1), steps=2)
        >>> weight = keras.Variable([1.0])
        >>> optimizer.apply([tf.constant([1.0])], [weight])
        >>> optimizer.apply([tf.constant([3.0])], [weight])
        >>> weight.numpy(), int(optimizer.iterations)
        (array([0.8], dtype=float32), 1)

    Differs from: Keras's `gradient_accumulation_steps`, which fails under strategies, gives schedules
    the number of calls and updates the EMA at every call.
    """

    def __init__(self, optimizer: Any, steps: Any, micro_batch_size: int | None = None, **base_options: Any):
        super().__init__(optimizer, **base_options)
        refuse_inside(self, self.inner_optimizer, (), "")
        for each in chain_of(self.inner_optimizer):
            if isinstance(each, LazyAdam):
                raise ValueError(
                    "`GradientAccumulation` must not wrap `LazyAdam`: the mean gradient is dense, so that "
                    "all rows would move. Use Adam, or larger batches without accumulation."
                )
        self.steps, self.micro_batch_size = steps, micro_batch_size
        if not isinstance(steps, BatchSizeSchedule):
            _checks.check_integer("steps", steps, minimum=1)
            return
        fix = "Say what batch size `fit` gets."
        size = _checks.check_integer("micro_batch_size", micro_batch_size, minimum=1, fix=fix)
        wrong = [total for total in steps.sizes.tolist() if total % size]
        if wrong:
            expected, fix = f"a divisor of all sizes, also of {wrong[0]}", f"Use `.rounded_to({size})`."
            raise ValueError(_checks.message("micro_batch_size", expected, size, fix))

    @property
    def sums_gradients(self) -> bool:
        """Only at an update, see `_update`."""
        return False

    @property
    def current_steps(self) -> keras.Variable:
        """Calls per update now; an int64 variable of the saved state. Set it with `set_steps`."""
        return self._steps

    def set_steps(self, steps: int) -> None:
        """Changes the calls per update of a built optimizer, from the update under way on."""
        self._steps.assign(_checks.check_integer("steps", steps, minimum=1))

    def build_own(self, variables: Any) -> None:
        """Creates the accumulators and counters."""
        zeros = keras.initializers.Zeros()
        self._sums = [create_slot(self, variable, "accumulator", zeros) for variable in variables]
        first = self._steps_at(0) if isinstance(self.steps, BatchSizeSchedule) else self.steps
        constant = keras.initializers.Constant
        self._steps = self.add_variable((), constant(first), "int64", name="steps")
        self._calls = self.add_variable((), "zeros", "int64", name="calls")
        self._samples = self.add_variable((), "zeros", "int64", name="samples")
        self._touched = self.add_variable((len(variables),), "zeros", "int64", name="touched")
        skip_all_reduce(self.inner_optimizer)

    def step(self, grads: list[Any], variables: list[Any]) -> None:
        """Adds up on each replica; the branch is taken once for all replicas, outside of them."""
        indices = [self._get_variable_index(variable) for variable in variables]
        others = [
            index
            for index, variable in enumerate(self._trainable_variables)
            if index not in indices and not is_overwritten(variable)
        ]
        for index, grad in zip(indices, grads):
            total = self._sums[index]
            value = tf.cast(tf.convert_to_tensor(grad), total.dtype)
            tf.raw_ops.AssignAddVariableOp(resource=handle(total), value=value)
        now = tf.constant([index in indices for index in range(len(self._sums))], tf.int64)
        assign(handle(self._touched), tf.maximum(read(handle(self._touched), "int64"), now))
        _add(self._calls, 1)
        _add(self._samples, self.micro_batch_size or 0)

        def across_replicas(strategy: tf.distribute.Strategy) -> None:
            calls, steps, touched = (
                strategy.experimental_local_results(v.value)[0]
                for v in (self._calls, self._steps, self._touched)
            )

            def update() -> int:
                if not others:
                    return alone()
                # Other variables, in a head that this call does not train, may have been touched before.
                return tf.cond(tf.reduce_any(tf.gather(touched, others) > 0), together, alone)

            def alone() -> int:
                strategy.extended.call_for_each_replica(self._update, args=(indices,))
                return 0

            def together() -> int:
                strategy.extended.call_for_each_replica(self._update, args=(sorted(indices + others), others))
                return 0

            tf.cond(calls >= steps, update, lambda: 0)

        tf.distribute.get_replica_context().merge_call(across_replicas)

    def _update(self, indices: list[int], unsure: list[int] | None = None) -> None:
        """One update of some variables; of the `unsure` ones only those that had a gradient."""
        calls, touched = read(handle(self._calls), "int64"), read(handle(self._touched), "int64") > 0
        sums = [self._sums[index] for index in indices]
        variables = [self._trainable_variables[index] for index in indices]
        means = [read(handle(total), total.dtype) / tf.cast(calls, total.dtype) for total in sums]
        for total in self._sums:
            assign(handle(total), tf.zeros(total.shape, total.dtype))
        assign(handle(self._calls), tf.zeros([], tf.int64))
        assign(handle(self._touched), tf.zeros([len(self._sums)], tf.int64))
        if isinstance(self.steps, BatchSizeSchedule):
            assign(handle(self._steps), self._steps_at(read(handle(self._samples), "int64")))
        pairs = self._all_reduce_sum_gradients(list(zip(means, variables)))
        means = [tf.cast(mean, variable.dtype) for mean, variable in pairs]
        if not unsure:
            self.inner_optimizer.apply(means, variables)
            return
        update_touched(
            self.inner_optimizer,
            [self._trainable_variables[index] for index in unsure],
            tf.gather(touched, unsure),
            lambda: self.inner_optimizer.apply(means, variables),
        )

    def overwrite(self, pairs: list[Any]) -> None:
        """The largest of the calls, at the update, as Keras's own accumulation has it."""
        sums = [self._sums[self._get_variable_index(variable)] for _, variable in pairs]
        largest = [tf.maximum(read(handle(old), old.dtype), new) for old, (new, _) in zip(sums, pairs)]
        due = read(handle(self._calls), "int64") + 1 >= read(handle(self._steps), "int64")

        def write() -> tf.Operation:
            super(GradientAccumulation, self).overwrite(
                [(value, variable) for value, (_, variable) in zip(largest, pairs)]
            )
            return tf.no_op()

        for total, value in zip(sums, largest):
            assign(handle(total), tf.where(due, tf.zeros_like(value), tf.cast(value, total.dtype)))
        tf.cond(due, write, tf.no_op)

    def _steps_at(self, samples: Any) -> Any:
        return self.steps(samples) // self.micro_batch_size

    def get_config(self) -> dict[str, Any]:
        """A schedule is stored as Keras stores objects."""
        config = super().get_config()
        if isinstance(self.steps, BatchSizeSchedule):
            config["steps"] = keras.saving.serialize_keras_object(self.steps)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "GradientAccumulation":
        """The reverse of `get_config`."""
        if isinstance(config["steps"], dict):
            steps = keras.saving.deserialize_keras_object(config["steps"], custom_objects=custom_objects)
            config = {**config, "steps": steps}
        return super().from_config(config, custom_objects)


def _add(counter: keras.Variable, amount: int) -> None:
    tf.raw_ops.AssignAddVariableOp(resource=handle(counter), value=tf.constant(amount, tf.int64))
