"""Every optimizer and wrapper as a row of facts; the contract checks them all."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np
from reference import adam, lookahead, sgd

import tfopt.optimizers as to

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
    tolerance: float = 1e-9  # of the comparison in float64; Keras computes some scalars in float32
    gaps: dict[str, str] = field(default_factory=dict)  # check -> why this optimizer cannot pass it

    def __str__(self) -> str:
        return self.name


MOMENTS = {"beta_1": [1.0, -0.1, float("nan")], "beta_2": [1.0, float("inf")], "epsilon": [-1e-8]}

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
        kind=True,
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
    ),
    Case(
        "ParameterGroups",
        lambda: to.ParameterGroups(to.AdamW(RATE), [to.Group(".", 0.5, weight_decay=0.1)]),
        partial(adam.run, lr=RATE / 2, weight_decay=0.1),
        slots=2,
        wraps=True,
        reduces_to=(lambda: to.ParameterGroups(to.AdamW(RATE), []), lambda: to.AdamW(RATE)),
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
    },
)
