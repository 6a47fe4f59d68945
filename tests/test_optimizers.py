"""Every optimizer and wrapper of the catalogue passes every check of the contract."""

import dataclasses
from functools import partial

import contract
import keras
import pytest
import tensorflow as tf
from catalogue import CASES, KERAS_ADAM, RATE, Case
from reference import sgd

import tfopt.optimizers as to
from tfopt.optimizers._rule import Slot


def name(check):
    return check.__name__.removeprefix("check_")


def run(check, case):
    """A gap must be real: a check that is said to fail has to fail."""
    if check.__name__ in case.gaps:
        with pytest.raises((AssertionError, TypeError, tf.errors.InvalidArgumentError)):
            check(case)
    else:
        check(case)


@pytest.mark.parametrize("check", contract.CHECKS, ids=name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_contract(case, check):
    run(check, case)


@pytest.mark.parametrize("case", [c for c in CASES if not c.wraps and c.name != "SOAP"], ids=str)
def test_every_path_to_a_variable_equals_the_reference(case):
    """Sizes are chosen for the fused kernel, the three kernels in its place, and the compiled rule."""
    shapes = ((), (40, 40), (260, 260))
    weights, grads = contract.variables("float64", 0, shapes), contract.gradients(0, shapes, 4)
    expected = case.reference(contract.values(weights), lambda t, w: grads[t], 4)
    optimizer = case.make()
    optimizer.build(weights)
    step = tf.function(lambda g: contract.apply(optimizer, weights, g), jit_compile=False)
    for t in range(1, 5):
        step([tf.constant(g, tf.float64) for g in grads[t]])
    contract.close(weights, expected, case.tolerance)


@pytest.mark.parametrize("jit", [False, True])
def test_fused_kernels_are_for_graphs_that_xla_does_not_compile(jit):
    """XLA fuses the rule itself; what most kernels are translated to is slower. One is a single product."""
    weights = contract.variables("float32", 0, ((40, 40),))
    grads = [tf.ones_like(w) for w in weights]
    optimizer = to.Adam(use_ema=True)
    optimizer.build(weights)
    step = tf.function(lambda: contract.apply(optimizer, weights, grads), jit_compile=jit)
    graph = tf.function(lambda: step()).get_concrete_function().graph.as_graph_def()
    operations = {node.op for function in graph.library.function for node in function.node_def}
    kernels = {name for name in operations if name.startswith("ResourceApply")}
    assert (not kernels - {"ResourceApplyGradientDescent"}) == jit


@pytest.mark.parametrize("check", contract.CHECKS, ids=name)
def test_keras_adam_passes_but_for_known_gaps(check):
    """A contract that Keras's Adam fails would be wrong."""
    run(check, KERAS_ADAM)


class Broken(to.SGD):
    """SGD with five mistakes that are common elsewhere, one per argument."""

    def __init__(self, learning_rate=0.01, mistake="", **base_options):
        super().__init__(learning_rate, **base_options)
        self.mistake = mistake
        self.calls = 0

    @property
    def has_kernel(self):
        return False

    @property
    def slots(self):
        return (Slot("count", shape=lambda shape: ()),)

    def rule(self, param, grad, slots, scalars):
        self.calls += 1
        factor = {"wrong sign": -1.0, "python counter": float(self.calls)}.get(self.mistake, 1.0)
        if self.mistake == "ignores the rate":
            return param - 0.01 * grad, slots
        return param - factor * scalars["learning_rate"] * grad, (slots[0] + 1.0,)

    def get_config(self):
        config = super().get_config()
        return {
            key: value
            for key, value in config.items()
            if self.mistake != "loses settings" or key != "mistake"
        }

    def apply(self, grads, trainable_variables=None):
        if self.mistake == "steps without data":
            keras.optimizers.Optimizer.apply(self, [grads[0] * 0 + 1, *grads[1:]], trainable_variables)
            self._iterations.assign_add(1)
        else:
            super().apply(grads, trainable_variables)


BROKEN = {
    "wrong sign": contract.check_equals_the_reference,
    "python counter": contract.check_equals_the_reference,
    "ignores the rate": contract.check_traces_once,
    "loses settings": contract.check_config_is_complete,
    "steps without data": contract.check_steps_without_data_do_nothing,
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_broken_optimizer_fails(mistake):
    case = Case("Broken", lambda: Broken(RATE, mistake), partial(sgd.run, lr=RATE))
    with pytest.raises(AssertionError):
        BROKEN[mistake](case)
    BROKEN[mistake](dataclasses.replace(case, make=lambda: Broken(RATE)))
