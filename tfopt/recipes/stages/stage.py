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
        refits_head: Whether it ends with the head of a pretrained model fitted again; with
            `fit_on_validation` to the validation images too.
    """

    name: ClassVar[str]
    result: ClassVar[str]
    delivers: ClassVar[bool] = True
    refits_head: ClassVar[bool] = False

    def start(self, model: keras.Model, session: Session) -> keras.Model:
        """The model to train, made from that of the step before, which is the same one by default."""
        return model

    @classmethod
    def learns_validation(cls, session: Session) -> bool:
        """Whether the validation images are no longer new to the model after this stage."""
        return cls.refits_head and session.config.pretrained and session.config.fit_on_validation

    @abc.abstractmethod
    def train(self, model: keras.Model, session: Session) -> History:
        """Trains what `start` gave, in place; returns a number per metric and epoch."""
