"""Every optimizer and wrapper as a row of facts; the contract checks them all."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np
from reference import (
    accumulation,
    adabelief,
    adafactor,
    adagrad,
    adam,
    adan,
    ademamix,
    adopt,
    gradients,
    lamb,
    laprop,
    lars,
    lion,
    lookahead,
    mars,
    muon,
    nadam,
    novograd,
    prodigy,
    radam,
    rmsprop,
    schedule_free,
    sgd,
    sm3,
    soap,
    stable_adamw,
    yogi,
)

import tfopt.optimizers as to

SHAPES = ((), (3,), (4, 3), (2, 3, 4), (3, 2, 2, 3))
LARGE_RATE = float(np.float32(0.1))
RATE = float(np.float32(0.01))  # a learning rate variable is float32


@dataclass(frozen=True)
class Case:
    """What is true of one optimizer.

    `make` builds it; `reference(weights, gradient, steps)` is the same in NumPy; `kind` marks the one
    case of its kind that runs the expensive modes by default; `bad` holds arguments that must be
    refused; `twin` builds Keras's own, with which it shares checkpoints; `reduces_to` is a pair of
    makers that must agree; `slots` counts the variables of state per model variable.
    """

    name: str
    make: Callable[[], keras.optimizers.Optimizer]
    reference: Callable[..., list]
    kind: bool = False
    bad: dict[str, Any] = field(default_factory=dict)
    twin: Callable[[], keras.optimizers.Optimizer] | None = None
    reduces_to: tuple[Callable, Callable] | None = None
    slots: int | None = None
    wraps: bool = False
    around_keras: bool = False
    stops_at_rate_0: bool = True
    calls_per_update: int = 1
    fit_tolerance: float = 1e-4
    shapes: tuple = SHAPES
    tolerance: float = 1e-9  # of the comparison in float64; Keras computes some scalars in float32
    gaps: dict[str, str] = field(default_factory=dict)  # check -> why this optimizer cannot pass it

    def __str__(self) -> str:
        return self.name


MOMENTS = {"beta_1": [1.0, -0.1, float("nan")], "beta_2": [1.0, float("inf")], "epsilon": [-1e-8]}


def stacked(weights, gradient, steps, momentum):
    """Lookahead(GradientAccumulation(Cautious(SGD)))."""
    inner = partial(gradients.cautious_momentum, lr=RATE, momentum=momentum)
    outer = partial(lookahead.run, inner=inner, sync_period=3, slow_step=0.5)
    return accumulation.run(weights, gradient, steps, inner=outer, every=2)


CASES = [
    Case(
        "SGD",
        lambda: to.SGD(RATE),
        partial(sgd.run, lr=RATE),
        slots=0,
        twin=lambda: keras.optimizers.SGD(RATE),
        bad={"momentum": [-0.1, 1.5, float("nan")]},
    ),
    Case(
        "SGD-momentum",
        lambda: to.SGD(RATE, momentum=0.9, weight_decay=0.1),
        partial(sgd.run, lr=RATE, momentum=0.9, weight_decay=0.1),
        stops_at_rate_0=False,
        slots=1,
        twin=lambda: keras.optimizers.SGD(RATE, momentum=0.9, weight_decay=0.1),
        reduces_to=(lambda: to.SGD(RATE, momentum=0.0), lambda: to.SGD(RATE)),
    ),
    Case(
        "SGD-nesterov",
        lambda: to.SGD(RATE, momentum=0.9, nesterov=True),
        partial(sgd.run, lr=RATE, momentum=0.9, nesterov=True),
        stops_at_rate_0=False,
        slots=1,
        twin=lambda: keras.optimizers.SGD(RATE, momentum=0.9, nesterov=True),
    ),
    Case(
        "Adam",
        lambda: to.Adam(RATE),
        partial(adam.run, lr=RATE),
        slots=2,
        twin=lambda: keras.optimizers.Adam(RATE),
        bad=MOMENTS,
    ),
    Case(
        "Adam-amsgrad",
        lambda: to.Adam(RATE, amsgrad=True),
        partial(adam.run, lr=RATE, amsgrad=True),
        slots=3,
        twin=lambda: keras.optimizers.Adam(RATE, amsgrad=True),
    ),
    Case(
        "AdamW",
        lambda: to.AdamW(RATE, weight_decay=0.1),
        partial(adam.run, lr=RATE, weight_decay=0.1),
        kind=True,
        slots=2,
        twin=lambda: keras.optimizers.AdamW(RATE, weight_decay=0.1),
        reduces_to=(lambda: to.AdamW(RATE, weight_decay=0.0), lambda: to.Adam(RATE)),
        bad=MOMENTS | {"weight_decay": [None, -0.1]},
    ),
    Case(
        "Lookahead",
        lambda: to.Lookahead(to.AdamW(RATE, weight_decay=0.0), sync_period=3, slow_step=0.5),
        partial(lookahead.run, inner=partial(adam.run, lr=RATE), sync_period=3, slow_step=0.5),
        slots=3,
        wraps=True,
        reduces_to=(lambda: to.Lookahead(to.Adam(RATE), slow_step=1.0), lambda: to.Adam(RATE)),
        bad={"sync_period": [0, -1], "slow_step": [1.5, float("nan")]},
    ),
    Case(
        "Lookahead-Keras",
        lambda: to.Lookahead(keras.optimizers.Adam(RATE), sync_period=3, slow_step=0.5),
        partial(lookahead.run, inner=partial(adam.run, lr=RATE), sync_period=3, slow_step=0.5),
        slots=3,
        wraps=True,
        around_keras=True,
        tolerance=1e-5,
        gaps={"check_variables_of_several_types_train_together": "Keras's Adam computes in bfloat16"},
    ),
    Case(
        "GradientAccumulation",
        lambda: to.GradientAccumulation(to.AdamW(RATE, weight_decay=0.1), steps=2),
        partial(accumulation.run, inner=partial(adam.run, lr=RATE, weight_decay=0.1), every=2),
        kind=True,
        slots=3,
        wraps=True,
        calls_per_update=2,
        reduces_to=(lambda: to.GradientAccumulation(to.Adam(RATE), steps=1), lambda: to.Adam(RATE)),
        bad={"steps": [0, 1.5]},
    ),
    Case(
        "GradientAccumulation-Keras",
        lambda: to.GradientAccumulation(keras.optimizers.Adam(RATE), steps=2),
        partial(accumulation.run, inner=partial(adam.run, lr=RATE), every=2),
        slots=3,
        wraps=True,
        around_keras=True,
        calls_per_update=2,
        tolerance=1e-5,
        gaps={
            "check_half_precision_variables_use_float32_arithmetic": "Keras's Adam computes in float16",
            "check_variables_of_several_types_train_together": "Keras's Adam computes in bfloat16",
        },
    ),
    Case(
        "ParameterGroups",
        lambda: to.ParameterGroups(to.AdamW(RATE), [to.Group(".", 0.5, weight_decay=0.1)]),
        partial(adam.run, lr=RATE / 2, weight_decay=0.1),
        slots=2,
        wraps=True,
        reduces_to=(lambda: to.ParameterGroups(to.AdamW(RATE), []), lambda: to.AdamW(RATE)),
    ),
    Case(
        "RMSprop",
        lambda: to.RMSprop(RATE),
        partial(rmsprop.run, lr=RATE),
        slots=1,
        twin=lambda: keras.optimizers.RMSprop(RATE),
        bad={"rho": [1.0, -0.1], "momentum": [1.0], "epsilon": [-1.0]},
    ),
    Case(
        "RMSprop-momentum",
        lambda: to.RMSprop(RATE, momentum=0.9),
        partial(rmsprop.run, lr=RATE, momentum=0.9),
        slots=2,
        stops_at_rate_0=False,
        twin=lambda: keras.optimizers.RMSprop(RATE, momentum=0.9),
    ),
    Case(
        "RMSprop-centered",
        lambda: to.RMSprop(RATE, momentum=0.9, centered=True, epsilon=1e-3),
        partial(rmsprop.run, lr=RATE, momentum=0.9, centered=True, epsilon=1e-3),
        slots=3,
        stops_at_rate_0=False,
        twin=lambda: keras.optimizers.RMSprop(RATE, momentum=0.9, centered=True, epsilon=1e-3),
    ),
    Case(
        "Adagrad",
        lambda: to.Adagrad(RATE),
        partial(adagrad.run, lr=RATE),
        slots=1,
        tolerance=1e-6,  # the kernel adds its epsilon after the root
        twin=lambda: keras.optimizers.Adagrad(RATE),
        bad={"initial_accumulator_value": [-1.0], "epsilon": [float("nan")]},
    ),
    Case(
        "Adagrad-from-zero",
        lambda: to.Adagrad(RATE, initial_accumulator_value=0.0),
        partial(adagrad.run, lr=RATE, initial=0.0),
        slots=1,
        twin=lambda: keras.optimizers.Adagrad(RATE, initial_accumulator_value=0.0),
    ),
    Case(
        "Nadam",
        lambda: to.Nadam(RATE),
        partial(nadam.run, lr=RATE),
        kind=True,
        slots=2,
        bad=MOMENTS | {"momentum_decay": [-1.0]},
    ),
    Case(
        "Nadam-Keras",
        lambda: to.Nadam(RATE, momentum_decay=1.0),
        partial(nadam.run, lr=RATE, decay=1.0),
        slots=2,
        twin=lambda: keras.optimizers.Nadam(RATE),
    ),
    Case(
        "Lion",
        lambda: to.Lion(RATE, weight_decay=0.1),
        partial(lion.run, lr=RATE, weight_decay=0.1),
        slots=1,
        twin=lambda: keras.optimizers.Lion(RATE, weight_decay=0.1),
        bad={"beta_1": [1.0], "beta_2": [-0.5]},
    ),
    Case("RAdam", lambda: to.RAdam(RATE), partial(radam.run, lr=RATE), slots=2, bad=MOMENTS),
    Case("AdaBelief", lambda: to.AdaBelief(RATE), partial(adabelief.run, lr=RATE), slots=2, bad=MOMENTS),
    Case("Yogi", lambda: to.Yogi(RATE), partial(yogi.run, lr=RATE), slots=2, bad=MOMENTS),
    Case(
        "AdEMAMix",
        lambda: to.AdEMAMix(RATE, warmup_steps=15),
        partial(ademamix.run, lr=RATE, warmup=15),
        slots=3,
        reduces_to=(lambda: to.AdEMAMix(RATE, alpha=0.0, epsilon=0.0), lambda: to.Adam(RATE, epsilon=0.0)),
        bad=MOMENTS | {"beta_3": [0.5, 1.0], "alpha": [-1.0], "warmup_steps": [-1, 1.5]},
    ),
    Case("ADOPT", lambda: to.ADOPT(RATE), partial(adopt.run, lr=RATE), slots=2, bad=MOMENTS),
    Case(
        "Adan",
        lambda: to.Adan(RATE, weight_decay=0.1),
        partial(adan.run, lr=RATE, weight_decay=0.1),
        slots=4,
        bad=MOMENTS | {"beta_3": [1.0]},
    ),
    Case(
        "LaProp",
        lambda: to.LaProp(RATE, weight_decay=0.1),
        partial(laprop.run, lr=RATE, weight_decay=0.1),
        slots=2,
        reduces_to=(lambda: to.LaProp(RATE, beta_1=0.0), lambda: to.Adam(RATE, beta_1=0.0, epsilon=1e-15)),
        bad=MOMENTS,
    ),
    Case(
        "MARS",
        lambda: to.MARS(RATE, weight_decay=0.1),
        partial(mars.run, lr=RATE, weight_decay=0.1),
        slots=3,
        bad=MOMENTS | {"gamma": [-0.1, 1.5, float("nan")]},
    ),
    Case(
        "Adafactor",
        lambda: to.Adafactor(RATE, weight_decay=0.1),
        partial(adafactor.run, lr=RATE, weight_decay=0.1),
        slots=0,
        reduces_to=(
            lambda: to.Adafactor(LARGE_RATE),
            lambda: keras.optimizers.Adafactor(LARGE_RATE),
        ),
        bad={
            "beta_2_decay": [0.0, 0.5, float("nan")],
            "epsilon_1": [-1e-30],
            "epsilon_2": [-1e-3],
            "clip_threshold": [0.0],
            "momentum": [1.0, -0.1],
        },
    ),
    Case(
        "Adafactor-momentum",
        lambda: to.Adafactor(RATE, momentum=0.9),
        partial(adafactor.run, lr=RATE, momentum=0.9),
        slots=1,
    ),
    Case(
        "SM3",
        lambda: to.SM3(RATE, weight_decay=0.1),
        partial(sm3.run, lr=RATE, weight_decay=0.1),
        bad={"momentum": [1.0, -0.1, float("nan")]},
    ),
    Case("SM3-without-momentum", lambda: to.SM3(RATE, momentum=0.0), partial(sm3.run, lr=RATE, momentum=0.0)),
    Case(
        "StableAdamW",
        lambda: to.StableAdamW(RATE, weight_decay=0.1),
        partial(stable_adamw.run, lr=RATE, weight_decay=0.1),
        slots=2,
        bad=MOMENTS,
    ),
    Case(
        "LARS",
        lambda: to.LARS(LARGE_RATE, weight_decay=0.1),
        partial(lars.run, lr=LARGE_RATE, weight_decay=0.1),
        slots=1,
        stops_at_rate_0=False,
        bad={"momentum": [1.0], "trust_coefficient": [0.0]},
    ),
    Case("LAMB", lambda: to.LAMB(RATE), partial(lamb.run, lr=RATE), slots=2, bad=MOMENTS),
    Case(
        "NovoGrad",
        lambda: to.NovoGrad(RATE, weight_decay=0.1),
        partial(novograd.run, lr=RATE, weight_decay=0.1),
        slots=1,
        bad=MOMENTS,
    ),
    Case(
        "LazyAdam",
        lambda: to.LazyAdam(RATE),
        partial(adam.run, lr=RATE),
        slots=2,
        reduces_to=(lambda: to.LazyAdam(RATE), lambda: to.Adam(RATE)),
        bad=MOMENTS,
    ),
    Case(
        "Prodigy",
        lambda: to.Prodigy(1.0, d0=1e-3, weight_decay=0.1),
        partial(prodigy.run, d0=1e-3, weight_decay=0.1),
        kind=True,
        slots=4,
        bad=MOMENTS | {"beta_3": [1.0], "d0": [0.0], "d_coefficient": [0.0, float("inf")]},
    ),
    Case(
        "ScheduleFreeAdamW",
        lambda: to.ScheduleFreeAdamW(RATE, warmup_steps=5, weight_decay=0.1),
        partial(schedule_free.run, lr=RATE, beta_2=0.999, warmup=5, weight_decay=0.1),
        kind=True,
        slots=2,
        stops_at_rate_0=False,
        bad=MOMENTS | {"beta_1": [0.0, 1.0], "warmup_steps": [-1]},
    ),
    Case(
        "ScheduleFreeSGD",
        lambda: to.ScheduleFreeSGD(RATE, weight_decay=0.1),
        partial(schedule_free.run, lr=RATE, weight_decay=0.1),
        slots=1,
        stops_at_rate_0=False,
        bad={"momentum": [0.0, 1.0]},
    ),
    Case(
        "Muon",
        lambda: to.Muon(RATE),
        partial(muon.run, lr=RATE),
        kind=True,
        slots=1,
        bad=MOMENTS | {"momentum": [1.0], "rms": [0.0], "newton_schulz_steps": [0]},
    ),
    Case(
        "SOAP",
        lambda: to.SOAP(RATE, weight_decay=None, refresh_period=3),
        partial(soap.run, lr=RATE, period=3),
        kind=True,
        shapes=((), (3,), (3, 3), (2, 2, 4), (4, 3)),  # the basis of a null space is arbitrary
        tolerance=1e-6,
        fit_tolerance=2e-3,
        bad=MOMENTS | {"refresh_period": [0], "max_size": [0]},
    ),
    Case(
        "Cautious",
        lambda: to.Cautious(to.SGD(RATE, momentum=0.9)),
        partial(gradients.cautious_momentum, lr=RATE),
        kind=True,
        slots=1,
        wraps=True,
        stops_at_rate_0=False,
        reduces_to=(lambda: to.Cautious(to.SGD(RATE)), lambda: to.SGD(RATE)),
    ),
    Case(
        "GradientCentralization",
        lambda: to.GradientCentralization(to.Adam(RATE)),
        partial(gradients.centralized, inner=partial(adam.run, lr=RATE)),
        gaps={
            "check_duplicate_rows_equal_the_dense_gradient": "an embedding's rows are not inputs of a unit"
        },
        slots=2,
        wraps=True,
    ),
    Case(
        "AdaptiveGradientClipping",
        lambda: to.AdaptiveGradientClipping(to.SGD(RATE)),
        partial(gradients.adaptively_clipped, inner=partial(sgd.run, lr=RATE)),
        slots=0,
        wraps=True,
        reduces_to=(lambda: to.AdaptiveGradientClipping(to.SGD(RATE), clip_factor=1e9), lambda: to.SGD(RATE)),
        bad={"clip_factor": [0.0], "epsilon": [-1.0]},
    ),
    Case(
        "stack",
        lambda: to.Lookahead(
            to.GradientAccumulation(to.Cautious(to.SGD(RATE, momentum=0.9)), steps=2), sync_period=3
        ),
        partial(stacked, momentum=0.9),
        kind=True,
        slots=3,
        wraps=True,
        stops_at_rate_0=False,
        calls_per_update=2,
    ),
]

KERAS_ADAM = Case(
    "keras.Adam",
    lambda: keras.optimizers.Adam(RATE),
    partial(adam.run, lr=RATE),
    slots=2,
    around_keras=True,
    tolerance=1e-5,
    gaps={
        "check_config_is_complete": "its constructor hides arguments of the base class in **kwargs",
        "check_refuses_a_state_that_does_not_fit": "warns and drops the state",
        "check_duplicate_rows_equal_the_dense_gradient": "squares duplicate rows before it adds them",
        "check_steps_without_data_do_nothing": "counts an iteration",
        "check_bad_gradients_are_refused": "updates the first variable before it meets the wrong shape",
        "check_bad_arguments_are_refused": "accepts NaN and negative numbers",
        "check_variables_of_several_types_train_together": "computes in bfloat16",
        "check_set_weights_takes_what_variables_give": "accepts too few arrays",
    },
)
