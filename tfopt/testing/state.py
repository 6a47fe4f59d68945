"""Checks of what is kept: configuration, saved state, first and second lives."""

import inspect
import json

import keras
import numpy as np
import tensorflow as tf

from tfopt.testing._training import Maker, assert_close, gradients, require, values, variables


def check_config_is_complete(make: Maker) -> None:
    """Keys are arguments of the constructor, values are plain, and the config makes an equal optimizer."""
    optimizer = make()
    optimizer.build(variables())
    config = optimizer.get_config()
    accepted = {"name"}
    for kind in type(optimizer).__mro__:
        if not kind.__module__.startswith("keras"):
            accepted |= set(inspect.signature(kind.__init__).parameters)
    require(set(config) <= accepted, f"no arguments of the constructor: {set(config) - accepted}")
    own = set(inspect.signature(type(optimizer).__init__).parameters) - {"self"}
    own -= {name for name in own if name.endswith("options") or name == "kwargs"}
    require(own <= set(config), f"arguments that `get_config` leaves out: {own - set(config)}")
    again = type(optimizer).from_config(json.loads(json.dumps(config)))
    again.build(variables())
    require(json.dumps(again.get_config()) == json.dumps(config), "the config of a copy differs")


def check_resumes_bit_for_bit(make: Maker) -> None:
    """n steps, save, load into a new optimizer, n steps: equal to 2n steps in every bit."""
    straight, resumed, steps = variables(), variables(), gradients(10)
    optimizer, before = make(), make()
    for grads in steps:
        optimizer.apply(grads, straight)
    for grads in steps[:5]:
        before.apply(grads, resumed)
    store: dict[str, np.ndarray] = {}
    before.save_own_variables(store)
    after = type(before).from_config(before.get_config())
    after.build(resumed)
    after.load_own_variables({key: np.array(value) for key, value in store.items()})
    for grads in steps[5:]:
        after.apply(grads, resumed)
    assert_close(resumed, straight, 0.0, "a resumed run differs from an unbroken one")


def check_loads_a_state_saved_before_the_first_update(make: Maker) -> None:
    """What `load_model` of a model that was compiled but never trained does."""
    store: dict[str, np.ndarray] = {}
    make().save_own_variables(store)
    optimizer = make()
    optimizer.build(variables())
    before = values(optimizer.variables)
    optimizer.load_own_variables(store)
    assert_close(optimizer.variables, before, 0.0, "an empty state has changed the new one")


def check_refuses_a_state_that_does_not_fit(make: Maker) -> None:
    """Too few arrays, or one of another shape."""
    optimizer = make()
    optimizer.build(variables())
    store: dict[str, np.ndarray] = {}
    optimizer.save_own_variables(store)
    fewer = {str(i): store[str(i)] for i in range(len(store) - 1)}
    for bad in (fewer, store | {str(len(store) - 1): np.zeros((7, 7))}):
        try:
            optimizer.load_own_variables(bad)
        except ValueError:
            continue
        raise AssertionError("`load_own_variables` accepts a state that does not fit.")


def check_set_weights_takes_what_variables_give(make: Maker) -> None:
    """All of `variables`, those of an inner optimizer too; other numbers of arrays are refused."""
    weights = [[keras.Variable(np.ones(2, "float32"), name="v")] for _ in range(2)]
    first, second = make(), make()
    for optimizer, own in zip((first, second), weights):
        optimizer.build(own)
    for _ in range(3):
        first.apply([tf.ones(2)], weights[0])
    second.set_weights([variable.numpy() for variable in first.variables])
    assert_close(second.variables, first.variables, 0.0, "`set_weights` loses state")
    try:
        second.set_weights([variable.numpy() for variable in first.variables][:-1])
    except ValueError:
        return
    raise AssertionError("`set_weights` accepts too few arrays.")


def check_an_empty_list_of_variables_builds(make: Maker) -> None:
    """A compiled `.h5` file and a frozen model are loaded so."""
    optimizer = make()
    optimizer.build([])
    require(optimizer.built, "`build([])` leaves the optimizer unbuilt")
    optimizer.apply([], [])


def check_weights_set_between_updates_are_the_start(make: Maker) -> None:
    """Nothing pulls weights that the user sets back to where training was."""
    optimizer, weights = make(), variables()
    for grads in gradients(6):
        optimizer.apply([tf.sign(grad) for grad in grads], weights)
    start = [np.full(weight.shape, 1000.0) for weight in weights]
    for weight, value in zip(weights, start):
        weight.assign(value)
    optimizer.learning_rate = 0.0
    for _ in range(6):
        optimizer.apply([tf.zeros(weight.shape) for weight in weights], weights)
    # Momentum may still carry them, by what the updates before were: far less than the way back.
    moved = max(np.abs(x - y).max() for x, y in zip(values(weights), start))
    require(moved < 100, f"weights that were set to 1000 are pulled back by {moved:.0f}")


def check_scales_of_float8_are_overwritten(make: Maker) -> None:
    """Variables with `overwrite_with_gradient` take the largest "gradient" of a cycle and have no state."""
    plain, scale = keras.Variable([1.0], name="plain"), keras.Variable([0.0], name="scale")
    scale.overwrite_with_gradient = True
    optimizer = make()
    optimizer.build([plain, scale])
    largest = 0.0
    for value in (3.0, 2.0, 1.0):
        updates = int(optimizer.iterations)
        largest = max(largest, value)
        optimizer.apply([tf.ones(1), tf.constant([value])], [plain, scale])
        if int(optimizer.iterations) > updates:
            require(float(scale.numpy()[0]) == largest, "a scale is not overwritten by its gradient")
            largest = 0.0
