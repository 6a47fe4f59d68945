"""The bases of callbacks: what one must offer to survive a restart, and that its model is one of Keras 3."""

import abc
from typing import Any, Self

import keras

from tfopt._checks import keras_2_fix


class KerasCallback(keras.callbacks.Callback):
    """A callback that says so where a model of Keras 2 is trained with it.

    A deep copy, as keras-tuner makes for each trial, is as new: variables, graphs and the model of the `fit`
    in which this callback was used cannot be copied, and would be of no use in another one.
    """

    _given: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        """Remembers what it is made with."""
        made = super().__new__(cls)
        made._given = arguments, options
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        arguments, options = self._given
        other = memo[id(self)] = type(self)(*arguments, **options)
        for name, value in vars(self).items():
            if not name.startswith("_"):  # settings that were changed since
                setattr(other, name, value)
        return other

    def set_model(self, model: Any) -> None:
        """Takes the model of the `fit` that begins."""
        fix = keras_2_fix(model)
        if fix:
            raise TypeError(f"`{type(self).__name__}` must be used with a model of Keras 3. {fix}")
        super().set_model(model)


class StatefulCallback(KerasCallback, abc.ABC):
    """A callback whose state `Resume` saves and restores.

    State is numbers, strings, None, NumPy arrays, and lists and dicts of these.
    """

    @abc.abstractmethod
    def get_state(self) -> dict[str, Any]:
        """Everything that influences later events, between two batches or at the end of an epoch."""

    @abc.abstractmethod
    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse of `get_state`, called after `on_train_begin`."""
