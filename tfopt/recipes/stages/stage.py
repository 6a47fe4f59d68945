"""The interface of a stage."""

import abc
from typing import ClassVar

import keras

from tfopt.recipes.session import Session

History = dict[str, list[float]]


class Stage(abc.ABC):
    """One step of a job: takes the model of the step before, leaves a trained one.

    Attributes:
        name: Of the record in `run.json`, the model in `stages/`, the folder of checkpoints and the bar.
        result: Name of its model in the comparison.
        delivers: Whether its model, also an interrupted one, is the float model that the user gets.
    """

    name: ClassVar[str]
    result: ClassVar[str]
    delivers: ClassVar[bool] = True

    def start(self, model: keras.Model, session: Session) -> keras.Model:
        """The model to train, made from that of the step before, which is the same one by default."""
        return model

    @abc.abstractmethod
    def train(self, model: keras.Model, session: Session) -> History:
        """Trains what `start` gave, in place; returns a number per metric and epoch."""
