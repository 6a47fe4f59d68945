"""Checks of traced steps: traces, XLA, steps without data, building inside of a step, replicas."""

import contextlib
import functools
from typing import Any

import numpy as np
import tensorflow as tf

from tfopt.testing._training import (
    FULL_RANK,
    Maker,
    assert_close,
    batches,
    gradients,
    linear_model,
    require,
    traced,
    values,
    variables,
)


def check_traces_once(make: Maker) -> None:
    """Further calls and a new learning rate need no further trace, and the rate takes effect."""
    ends = []
    for rate in (None, 0.0):
        optimizer, weights, steps = make(), variables(), gradients(6)
        traces: list[int] = []

        step = tf.function(functools.partial(_counted, optimizer, weights, traces), autograph=False)
        for grads in steps[:3]:
            step(grads)
        count = len(traces)
        require(count <= 2, f"three calls took {count} traces")  # two where a function creates variables
        if rate is not None:
            optimizer.learning_rate = rate
        for grads in steps[3:]:
            step(grads)
        require(len(traces) == count, "a new learning rate takes another trace")
        ends.append(values(weights))
    require(not all(np.array_equal(x, y) for x, y in zip(*ends)), "a traced step ignores a new learning rate")


def check_graph_and_xla_equal_eager(make: Maker) -> None:
    """Eight steps; the XLA part is left out where TensorFlow cannot compile the update."""
    steps = gradients(8, FULL_RANK)

    def run(**options: Any) -> list[Any]:
        optimizer, weights = make(), variables(shapes=FULL_RANK)
        optimizer.build(weights)
        step = traced(optimizer, weights, **options) if options else None
        for grads in steps:
            step(grads) if step else optimizer.apply(grads, weights)
        return weights

    eager = run()
    assert_close(run(jit_compile=False), eager, 1e-4, "a graph differs from eager mode")
    with contextlib.suppress(tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
        compiled = run(jit_compile=True)
        assert_close(compiled, eager, 1e-3, "XLA differs from eager mode")


def check_steps_without_data_do_nothing(make: Maker) -> None:
    """A step whose gradients fail, as at the end of a dataset of unknown length, changes nothing."""
    optimizer, weights = make(), variables()
    optimizer.build(weights)
    source = iter(tf.data.Dataset.from_tensors(1.0).filter(lambda x: x > 1e9))

    @tf.function(autograph=False)
    def step() -> None:
        missing = next(source)
        optimizer.apply([tf.ones(weight.shape) * missing for weight in weights], weights)

    before = values(weights) + values(optimizer.variables)
    with contextlib.suppress(tf.errors.OutOfRangeError):
        step()
    after = values(weights) + values(optimizer.variables)
    assert_close(after, before, 0.0, "a step without data changes something")


def check_a_traced_step_builds_model_and_optimizer(make: Maker) -> None:
    """On one device: equal in every bit to a model and an optimizer that were built before."""
    ends = [_train_in_a_loop(make, built) for built in (True, False)]
    assert_close(ends[1], ends[0], 0.0, "building inside of the traced step changes the training")


def check_replicas_build_and_stay_equal(make: Maker) -> None:
    """On two replicas, lazily built: they stay equal, and equal to one device with the whole batch.

    Uses the strategy in scope, or else two logical CPUs; does nothing where there is one only:
    `tf.config.set_logical_device_configuration` makes more before TensorFlow starts.
    """
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        devices = [device.name for device in tf.config.list_logical_devices("CPU")][:2]
        if len(devices) < 2:
            return
        strategy = _mirrored(*devices)
    with strategy.scope():
        both = linear_model(make(), built=False)
    one = linear_model(make(), jit_compile=False)
    x, y = batches()
    for model in (one, both):
        for _ in range(4):
            model.train_on_batch(x, y)
    for variable in both.trainable_variables + both.optimizer.variables:
        first, second = (each.numpy() for each in strategy.experimental_local_results(variable.value))
        np.testing.assert_array_equal(first, second, err_msg=f"the replicas differ in {variable.path}")
    assert_close(both.trainable_variables, one.trainable_variables, 1e-3, "two replicas differ from one")


def _counted(optimizer: Any, weights: Any, traces: list[int], grads: Any) -> None:
    traces.append(1)
    optimizer.apply(grads, weights)


@functools.cache
def _mirrored(*devices: str) -> tf.distribute.Strategy:
    """One for all checks: several over the same devices disturb each other."""
    return tf.distribute.MirroredStrategy(devices)


def _train_in_a_loop(make: Maker, built: bool) -> list[Any]:
    x, y = batches()
    model, optimizer = linear_model("sgd", built=built), make()
    if built:
        optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x) - y))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    for _ in range(4):
        step()
    return model.trainable_variables
