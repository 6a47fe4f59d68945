"""Gradient accumulation: one update from the mean gradient of several batches."""

from typing import Any

import keras
import tensorflow as tf

from tfopt import _checks
from tfopt.optimizers._kernels import assign, read
from tfopt.optimizers._slots import Slot, create_slots
from tfopt.optimizers._update import handle
from tfopt.optimizers._wrapper import OptimizerWrapper, skip_all_reduce
from tfopt.schedules.batch_size import BatchSizeSchedule


@keras.saving.register_keras_serializable(package="tfopt")
class GradientAccumulation(OptimizerWrapper):
    """Updates with the mean gradient of several batches, exactly as one big batch would.

    For batches larger than the memory, and for batch sizes that grow during training. Every `steps`
    calls the inner optimizer makes one ordinary update: learning rate schedules, `iterations`, EMA and
    weight decay count updates. It equals the big batch if all batches have the same size (use
    `drop_remainder`) and the model has no batch statistics.

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
        ValueError: If a number is out of its bounds, or a size no multiple of `micro_batch_size`.

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
        self._sums = [slots[0] for slots in create_slots(self, variables, [Slot("accumulator")])]
        first = self._steps_at(0) if isinstance(self.steps, BatchSizeSchedule) else self.steps
        constant = keras.initializers.Constant
        self._steps = self.add_variable((), constant(first), "int64", name="steps")
        self._calls = self.add_variable((), "zeros", "int64", name="calls")
        self._samples = self.add_variable((), "zeros", "int64", name="samples")
        skip_all_reduce(self.inner_optimizer)

    def step(self, grads: list[Any], variables: list[Any]) -> None:
        """Adds up on each replica; the branch is taken once for all replicas, outside of them."""
        sums = [self._sums[self._get_variable_index(variable)] for variable in variables]
        for total, grad in zip(sums, grads):
            value = tf.cast(tf.convert_to_tensor(grad), total.dtype)
            tf.raw_ops.AssignAddVariableOp(resource=handle(total), value=value)
        _add(self._calls, 1)
        _add(self._samples, self.micro_batch_size or 0)

        def across_replicas(strategy: tf.distribute.Strategy) -> None:
            calls, steps = (
                strategy.experimental_local_results(v.value)[0] for v in (self._calls, self._steps)
            )

            def update() -> int:
                strategy.extended.call_for_each_replica(self._update, args=(sums, variables))
                return 0

            tf.cond(calls >= steps, update, lambda: 0)

        tf.distribute.get_replica_context().merge_call(across_replicas)

    def _update(self, sums: list[keras.Variable], variables: list[Any]) -> None:
        calls = read(handle(self._calls), "int64")
        means = [read(handle(total), total.dtype) / tf.cast(calls, total.dtype) for total in sums]
        for total in self._sums:
            assign(handle(total), tf.zeros(total.shape, total.dtype))
        assign(handle(self._calls), tf.zeros([], tf.int64))
        if isinstance(self.steps, BatchSizeSchedule):
            assign(handle(self._steps), self._steps_at(read(handle(self._samples), "int64")))
        pairs = self._all_reduce_sum_gradients(list(zip(means, variables)))
        self.inner_optimizer.apply([tf.cast(mean, v.dtype) for mean, v in pairs], variables)

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
