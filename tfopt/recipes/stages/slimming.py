"""A model with fewer channels."""

import math
from typing import final

import keras

from tfopt import compress, optimizers
from tfopt.recipes.session import Session
from tfopt.recipes.stages.fine_tuning import unfreeze
from tfopt.recipes.stages.fit import Training, fit_with_fresh_statistics
from tfopt.recipes.stages.linear_head import refit_head
from tfopt.recipes.stages.quantization import imitation, in_small_batches
from tfopt.recipes.stages.stage import History, Stage


@final
class Slimming(Stage):
    """Removes the channels that the loss needs least, and trains the others to answer as all of them did.

    A slimmed model needs long training by distillation, at a high rate: its errors come from what it cannot
    imitate yet, not from the labels of few images. Then the head is fitted to its features.

    Args:
        keep: Share of each layer's channels that stays, in (0, 1).
        teacher: The whole model.
        epochs: Of training, >= 1; None: as many as make `ENOUGH_UPDATES`.
    """

    name = "slimming"
    result = "slimmed"
    refits_head = True
    RATE = 30.0  # of the learning rate
    ENOUGH_UPDATES = 2200  # after which half the channels of a fine-tuned MobileNet answer as all of them did

    def __init__(self, keep: float, teacher: keras.Model, epochs: int | None = None) -> None:
        self.keep, self.teacher, self.epochs = keep, teacher, epochs

    def start(self, model: keras.Model, session: Session) -> keras.Model:
        """The slimmed model, its weights fitted on images as they are and varied."""
        unfreeze(model)  # the criterion needs the gradient of every weight
        model.compile(loss=session.task.loss())
        sample = session.sample(weighted=True).concatenate(session.sample(augmented=True, weighted=True))
        with session.home.scope():
            return compress.slim(model, self.keep, criterion="taylor", data=sample)

    def train(self, model: keras.Model, session: Session) -> History:
        """Trains in small batches."""
        unfreeze(model)
        small = in_small_batches(session)
        training = Training(
            self.name,
            self.epochs or math.ceil(self.ENOUGH_UPDATES / len(small.training())),
            self.RATE * session.config.learning_rate,
            optimizers.no_decay_on_norm_and_bias,
            [imitation(self.teacher, session)],
            keep_best=False,
        )
        history = fit_with_fresh_statistics(model, small, training)
        refit_head(model, session)
        return history
