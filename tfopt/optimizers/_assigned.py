"""Lets state that is made from the weights start anew where the user sets the weights between updates.

Lookahead's slow weights, Schedule-Free's z, Prodigy's start and the average of `use_ema` are made from the
weights. After `set_weights`, `load_weights` or `EarlyStopping(restore_best_weights=True)` such state would
pull the weights back to where they were. Keras tells an optimizer nothing of that, and to compare values in
every step would cost a pass over the weights. So the methods by which a `tf.Variable` is assigned outside of
graphs are observed, on the variables that have such state. Assignments in a traced step are part of it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

_OBSERVERS = "_tfopt_observers"
_unobserved = 0  # how many `unobserved` are open

First = Callable[[Any], Any]  # from the value of a variable to the first value of its state


class _Kept(NamedTuple):
    """What training left: a digest of the weights, and the state that belongs to them."""

    digest: bytes
    state: list[np.ndarray]


class Followers:
    """The state of one optimizer that follows its variables.

    Only elements that an assignment changes start anew, and the return of the weights that training left
    brings their state back: swapping an average in for an evaluation changes nothing. A state that is loaded
    stays if the weights of the same checkpoint are set after it.

    Args:
        iterations: The counter of updates; at 0 the first update itself starts from the weights.
        variables: The variables of the optimizer.
        states: For each variable pairs of a state variable and the function that makes its first value.
        common: State of all variables together and the value at which it starts anew, if all are set.
    """

    def __init__(
        self,
        iterations: Any,
        variables: Sequence[Any],
        states: Sequence[Sequence[tuple[keras.Variable, First]]],
        common: Sequence[tuple[keras.Variable, float]] = (),
    ):
        self._iterations, self._states, self._common = iterations, states, common
        self._busy = 0  # a count: replicas, each in its thread, enter and leave in any order
        self._seen = 0
        self._forget()
        self._of: dict[int, tuple[Callable[..., None], Any]] = {}
        self._watch(iterations, self._count_is_set, None)
        for index, (variable, own) in enumerate(zip(variables, states)):
            if own:
                self._watch(variable, self._weights_are_set, index)
            for state, _ in own:
                self._watch(state, self._state_is_set, index)
        self._followed = {index for index, own in enumerate(states) if own}

    def _watch(self, variable: Any, react: Callable[..., None], index: int | None) -> None:
        target = _resource(variable)
        self._of[id(target)] = (react, index)
        observers = vars(target).get(_OBSERVERS)
        if observers is None:
            observers = weakref.WeakSet()
            setattr(target, _OBSERVERS, observers)
            for name in ("assign", "assign_add", "assign_sub"):
                setattr(target, name, functools.partial(_assign, target, observers, getattr(target, name)))
        observers.add(self)

    @contextlib.contextmanager
    def updating(self) -> Iterator[None]:
        """While the optimizer itself assigns."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    def assign(self, variable: Any, assign: Callable[[], Any]) -> Any:
        """Calls `assign`, and lets the state follow."""
        if self._busy:
            return assign()
        if self._updates() != self._seen:  # there was training since the last assignment
            self._seen = self._updates()
            self._forget()
        react, index = self._of[id(variable)]
        before = _value(variable) if index is not None else None
        result = assign()
        with self.updating():
            react(index, variable, before)
        return result

    def _forget(self) -> None:
        self._assigned: set[int] = set()  # variables that were set since the last update
        self._loaded: set[int] = set()  # variables whose state was set, but not yet they themselves
        self._kept: dict[int, _Kept] = {}
        self._kept_common: list[np.ndarray] | None = None

    def _updates(self) -> int:
        return int(keras.ops.convert_to_numpy(self._iterations))

    def _count_is_set(self, index: None, variable: Any, before: None) -> None:
        self._seen = self._updates()  # by loading, which is no training

    def _state_is_set(self, index: int, variable: Any, before: Any) -> None:
        self._kept.pop(index, None)
        self._kept_common = None  # of a state that is no more
        if index not in self._assigned:
            self._loaded.add(index)

    def _weights_are_set(self, index: int, variable: Any, before: np.ndarray) -> None:
        loading = index in self._loaded
        self._loaded.discard(index)
        self._assigned.add(index)
        if loading or self._seen == 0:
            return
        now, own, kept = _value(variable), self._states[index], self._kept.get(index)
        changed = before != now
        if kept is not None and _digest(now) == kept.digest:
            for (state, _), value in zip(own, kept.state):
                state.assign(value)
            del self._kept[index]
            self._assigned.discard(index)
        elif kept is not None or np.any(changed):
            if kept is None:
                values = [_value(_resource(state)) for state, _ in own]
                self._kept[index] = _Kept(_digest(before), values)
            for state, first in own:
                start = np.asarray(first(now), dtype=state.dtype)
                state.assign(np.where(changed, start, _value(_resource(state))))
        self._common_follows()

    def _common_follows(self) -> None:
        """Starts the common state anew when all variables were set; brings it back with the last of them."""
        if self._kept_common is None and self._kept and self._followed <= self._assigned:
            self._kept_common = [_value(_resource(state)) for state, _ in self._common]
            for state, start in self._common:
                state.assign(start)
        elif self._kept_common is not None and not self._kept:
            for (state, _), value in zip(self._common, self._kept_common):
                state.assign(value)
            self._kept_common = None


@contextlib.contextmanager
def unobserved() -> Iterator[None]:
    """While weights are set for a while, such as an average for an evaluation, or with their whole state.

    For a while: the state stays that of the training weights, also in a checkpoint that is saved meanwhile.
    A run that goes on from such a checkpoint could not know the state to which it has to return. With their
    state: what a callback restores is right already, in whatever order it is written.
    """
    global _unobserved
    _unobserved += 1
    try:
        yield
    finally:
        _unobserved -= 1


def _assign(variable: Any, observers: Any, plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    call = functools.partial(plain, *args, **kwargs)
    in_replica = tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context()
    if _unobserved or not tf.executing_eagerly() or in_replica or _swapped_by_keras():
        return call()
    for observer in list(observers):
        call = functools.partial(observer.assign, variable, call)
    return call()


def _swapped_by_keras() -> bool:
    """Whether `SwapEMAWeights` assigns: it exchanges weights and average by sums, and back later.

    The average must not start anew at a sum. Keras gives no other sign of it than who calls.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(frame.f_locals.get("self"), keras.callbacks.SwapEMAWeights):
            return True
        frame = frame.f_back
    return False


def _resource(variable: Any) -> Any:
    return variable.value if isinstance(variable, keras.Variable) else variable


def _value(variable: Any) -> np.ndarray:
    return tf.convert_to_tensor(variable).numpy()


def _digest(value: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=16).digest()
