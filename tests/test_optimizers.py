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
from tfopt import testing


def name(check):
    return check.__name__.removeprefix("check_")


def run(check, case):
    """A gap must be real: a check that is said to fail has to fail."""
    if check.__name__ in case.gaps:
        with pytest.raises((AssertionError, TypeError, tf.errors.InvalidArgumentError)):
            check(case)
    else:
        check(case)


# These train models, compile or start replicas: one case of each kind by default.
SLOW = {
    "check_replicas_build_and_stay_equal",
    "check_graph_and_xla_equal_eager",
    "check_a_traced_step_builds_model_and_optimizer",
    "check_a_saved_model_trains_on_identically",
    "check_a_copied_model_trains_on_identically",
    "check_a_second_fit_starts_from_weights_that_were_set",
}
REPRESENTATIVE = {"GradientAccumulation", "ScheduleFreeAdamW", "stack"}
PAIRS = [
    pytest.param(case, check, id=f"{case}-{name(check)}", marks=pytest.mark.full)
    if check.__name__ in SLOW and case.name not in REPRESENTATIVE
    else pytest.param(case, check, id=f"{case}-{name(check)}")
    for case in CASES
    for check in contract.CHECKS
]


@pytest.mark.parametrize(("case", "check"), PAIRS)
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_contract(case, check, two_replicas):
    if "replicas" in check.__name__:
        with two_replicas.scope():  # several strategies in one process disturb each other
            run(check, case)
    else:
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


@pytest.mark.full
@pytest.mark.parametrize("check", contract.CHECKS, ids=name)
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
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
        return (to.Slot("count", shape=lambda axes: ()),)

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


def check_named(name):
    return next(check for check in contract.CHECKS if check.__name__ == name)


BROKEN = {
    "wrong sign": contract.check_equals_the_reference,
    "python counter": contract.check_equals_the_reference,
    "ignores the rate": check_named("check_traces_once"),
    "loses settings": check_named("check_config_is_complete"),
    "steps without data": check_named("check_steps_without_data_do_nothing"),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_broken_optimizer_fails(mistake):
    case = Case("Broken", lambda: Broken(RATE, mistake), partial(sgd.run, lr=RATE))
    with pytest.raises(AssertionError):
        BROKEN[mistake](case)
    BROKEN[mistake](dataclasses.replace(case, make=lambda: Broken(RATE)))


def test_check_optimizer_names_what_fails_and_wants_a_maker(monkeypatch):
    wanted = ("check_config_is_complete", "check_constraints_hold")
    monkeypatch.setattr(testing.contract, "CHECKS", [c for c in testing.CHECKS if c.__name__ in wanted])
    testing.check_optimizer(to.SGD)
    with pytest.raises(AssertionError, match="fails 1 of 2 checks:\n- check_config_is_complete"):
        testing.check_optimizer(lambda: Broken(RATE, "loses settings"))
    testing.check_optimizer(
        lambda: Broken(RATE, "loses settings"), known_gaps={"check_config_is_complete": "a mistake"}
    )
    with pytest.raises(AssertionError, match="take it off `known_gaps`"):
        testing.check_optimizer(to.SGD, known_gaps={"check_constraints_hold": "none"})
    with pytest.raises(TypeError, match="each check needs new ones"):
        testing.check_optimizer(to.SGD())
