"""The layers that hold a variable. A gateway: Keras has no public list of what a layer holds itself."""

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import keras

_LAYERS: Any = weakref.WeakSet()  # layers that owned a variable that was asked for


def owners(variables: Sequence[Any]) -> dict[int, list[keras.Layer]]:
    """The layers that hold each variable itself, by its id.

    An optimizer is given variables, and a variable does not know its layer. So the layers that are alive are
    asked, which takes a fraction of a second where there are millions of objects.
    """
    wanted = {id(variable) for variable in variables}
    if not wanted:
        return {}
    found = _owned(wanted, list(_LAYERS))
    if len(found) < len(wanted):
        found = _owned(wanted, _alive())
    if len(found) < len(wanted) and gc.get_freeze_count():
        gc.unfreeze()  # what a program has frozen, `gc.get_objects` leaves out
        found = _owned(wanted, _alive())
        gc.freeze()
    _LAYERS.update(layer for layers in found.values() for layer in layers)
    return found


def _alive() -> list[keras.Layer]:
    return [each for each in gc.get_objects() if issubclass(type(each), keras.Layer)]


def _owned(wanted: set[int], layers: list[keras.Layer]) -> dict[int, list[keras.Layer]]:
    found: dict[int, list[keras.Layer]] = {}
    for layer in layers:
        # A layer that is being made, or is torn down, has no lists yet.
        for name in ("_trainable_variables", "_non_trainable_variables"):
            for variable in vars(layer).get(name, ()):
                if id(variable) in wanted:
                    found.setdefault(id(variable), []).append(layer)
    return found
