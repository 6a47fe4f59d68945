"""Runs clean-up when `fit` is left in any way; Keras calls no hook when an exception ends it.

`fit` makes a `CallbackList` of its own. While it runs, exceptions leave it through the list (an event of any
callback), or through the context manager in which it runs the batches of an epoch or of a validation. Both
are watched. What ends `fit` elsewhere, such as a metric that cannot be computed, is noticed when the list
dies, which is when nobody keeps the exception any longer.
"""

import contextlib
import functools
import inspect
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import keras

_FUNCTIONS: Any = weakref.WeakKeyDictionary()  # CallbackList -> what to run at the end of its `fit`
_LOOPS_BEGIN = ("on_epoch_begin", "on_test_begin")  # events before a loop over batches


class FitEnd:
    """Runs a function once when the running `fit` ends; create it in `on_train_begin`.

    Args:
        function: What to run. It must not refer to the `CallbackList`.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        callbacks, frame = _running_fit()
        self._frame = id(frame)
        self._functions: list[Callable[[], Any]] = [] if callbacks is None else _watched(callbacks)
        self._function = function
        self._functions.append(function)

    def now(self) -> None:
        """Runs the function unless it has run; call it in `on_train_end`."""
        if self._function in self._functions:
            self._functions.remove(self._function)
            self._function()

    def is_over(self, frame: FrameType | None) -> bool:
        """Whether `fit` runs no longer, also if its end was not noticed.

        Args:
            frame: The innermost frame of the thread that `fit` ran in.
        """
        while frame is not None and id(frame) != self._frame:
            frame = frame.f_back
        return frame is None


def callbacks_of_fit() -> list[keras.callbacks.Callback]:
    """All callbacks of the running `fit`; none if a callback is called otherwise."""
    callbacks, _ = _running_fit()
    return [] if callbacks is None else list(callbacks.callbacks)


def callbacks_after(callback: keras.callbacks.Callback) -> list[keras.callbacks.Callback]:
    """All callbacks of the running `fit` but the given one, which must be the first."""
    callbacks = callbacks_of_fit()
    if not callbacks:
        raise RuntimeError(f"`{type(callback).__name__}` must be called by Keras's `CallbackList`.")
    if callbacks[0] is not callback:
        names = [type(each).__name__ for each in callbacks]
        raise ValueError(f"`{type(callback).__name__}` must be the first callback. Received: {names}.")
    return callbacks[1:]


def _running_fit() -> tuple[keras.callbacks.CallbackList | None, FrameType | None]:
    """The list that calls this callback, and the frame that calls the list: `fit` or a loop of the user's."""
    frame = inspect.currentframe()
    while frame is not None:
        callbacks = frame.f_locals.get("self")
        if isinstance(callbacks, keras.callbacks.CallbackList):
            return callbacks, frame.f_back
        frame = frame.f_back
    return None, None


def _watched(callbacks: keras.callbacks.CallbackList) -> list[Callable[[], Any]]:
    """The functions that run at the end of its `fit`."""
    if callbacks not in _FUNCTIONS:
        functions: list[Callable[[], Any]] = []
        _FUNCTIONS[callbacks] = functions
        weakref.finalize(callbacks, _run, functions).atexit = False
        for name in dir(type(callbacks)):
            if name.startswith("on_"):
                setattr(
                    callbacks, name, functools.partial(_call_event, weakref.ref(callbacks), name, functions)
                )
    return _FUNCTIONS[callbacks]


def _call_event(reference: Any, name: str, functions: list, *arguments: Any, **options: Any) -> None:
    if name in _LOOPS_BEGIN:
        frame = inspect.currentframe()
        caller = None if frame is None else frame.f_back
        iterator: Any = None if caller is None else caller.f_locals.get("epoch_iterator")
        if hasattr(iterator, "catch_stop_iteration") and "catch_stop_iteration" not in vars(iterator):
            context = functools.partial(_batches, weakref.ref(iterator), functions)
            iterator.catch_stop_iteration = context
    with _running_at_error(functions):
        callbacks = reference()
        getattr(type(callbacks), name)(callbacks, *arguments, **options)


@contextlib.contextmanager
def _batches(reference: Any, functions: list) -> Iterator[None]:
    """The context in which `fit` and `evaluate` run their batches."""
    iterator = reference()
    with _running_at_error(functions), type(iterator).catch_stop_iteration(iterator):
        yield


@contextlib.contextmanager
def _running_at_error(functions: list) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _run(functions)
        raise


def _run(functions: list) -> None:
    while functions:
        functions.pop()()
