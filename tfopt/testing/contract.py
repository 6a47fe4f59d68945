"""`check_optimizer`: runs every check on an optimizer of yours."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import keras

from tfopt import _checks
from tfopt.testing import arithmetic, graphs, models, state
from tfopt.testing._training import Maker


def _checks_of(module: ModuleType) -> list[Callable[[Maker], None]]:
    return [value for name, value in vars(module).items() if name.startswith("check_")]


CHECKS = [check for module in (arithmetic, state, graphs, models) for check in _checks_of(module)]


def check_optimizer(optimizer: Any, *, known_gaps: Mapping[str, str] | None = None) -> None:
    """Checks an optimizer or wrapper of yours against the contract that all of tfopt's pass.

    The contract is what a drop-in replacement for Keras's own optimizers needs: one trace, equal results in
    eager mode, graphs, XLA and on two replicas, exact saved states, float16 to float64, sparse gradients,
    models that their first step builds, copies, weights set by the user, and more: `tfopt.testing.CHECKS`. It
    does not know what your update should compute: compare that with a reference of your own. Takes about a
    minute.

    Args:
        optimizer: A class of optimizers that needs no arguments, or a function without arguments that makes
            a new one each time.
        known_gaps: Names of checks that are expected to fail, and why. One that passes is an error, so that
            the list stays true.

    Raises:
        TypeError: If `optimizer` is no class or function, or makes no Keras optimizer.
        AssertionError: If a check fails. It names all that fail, with the reason of the first as its cause.

    Example:
        >>> tfopt.testing.check_optimizer(lambda: MyOptimizer(0.01))  # doctest: +SKIP
    """
    fix = "Give a class or a function, because each check needs new ones: `lambda: MyOptimizer(0.01)`."
    if isinstance(optimizer, keras.optimizers.Optimizer) or not callable(optimizer):
        raise TypeError(_checks.message("optimizer", "a class or a function", optimizer, fix))
    made = optimizer()
    if not isinstance(made, keras.optimizers.Optimizer):
        raise TypeError(_checks.message("optimizer", "one that makes a Keras optimizer", made, fix))
    gaps = dict(known_gaps or {})
    unknown = set(gaps) - {check.__name__ for check in CHECKS}
    if unknown:
        raise ValueError(f"`known_gaps` must name checks of `tfopt.testing.CHECKS`. Received: {unknown}.")
    failures: dict[str, Exception] = {}
    for check in CHECKS:
        try:
            check(optimizer)
        except Exception as error:
            if check.__name__ not in gaps:
                failures[check.__name__] = error
        else:
            if check.__name__ in gaps:
                failures[check.__name__] = AssertionError("It passes: take it off `known_gaps`.")
    if failures:
        lines = [f"- {name}: {type(e).__name__}: {str(e).strip()[:300]}" for name, e in failures.items()]
        head = f"`{type(made).__name__}` fails {len(failures)} of {len(CHECKS)} checks:"
        raise AssertionError("\n".join([head, *lines])) from next(iter(failures.values()))
