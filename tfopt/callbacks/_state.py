"""What a callback must offer to survive a restart: its state as plain data."""

import abc
from typing import Any

import keras


class StatefulCallback(keras.callbacks.Callback, abc.ABC):
    """A callback whose state `Resume` saves and restores.

    State is numbers, strings, None, NumPy arrays, and lists and dicts of these.
    """

    @abc.abstractmethod
    def get_state(self) -> dict[str, Any]:
        """Everything that influences later events, between two batches or at the end of an epoch."""

    @abc.abstractmethod
    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_state`, called after `on_train_begin`."""
