"""Kernels with few distinct values."""

from typing import final

import keras

from tfopt import compress, optimizers
from tfopt.recipes.session import Session
from tfopt.recipes.stages.fine_tuning import unfreeze
from tfopt.recipes.stages.fit import Training, fit_with_fresh_statistics
from tfopt.recipes.stages.stage import History, Stage


@final
class Clustering(Stage):
    """Trains with kernels of few distinct values; keeps the last epoch.

    Args:
        clusters: Distinct values of each kernel, >= 2.
        teacher: The model as it was.
    """

    name = "clustering"
    result = "clustered"
    RATE = 0.2  # of the learning rate: the means of many weights move little

    def __init__(self, clusters: int, teacher: keras.Model) -> None:
        self.clusters, self.teacher = clusters, teacher

    def train(self, model: keras.Model, session: Session) -> History:
        """Trains `compress_epochs` epochs."""
        unfreeze(model)
        training = Training(
            self.name,
            session.config.compress_epochs,
            self.RATE * session.config.learning_rate,
            optimizers.no_decay_on_norm_and_bias,
            [compress.Clustering(self.clusters, teacher=self.teacher)],
            keep_best=False,
        )
        return fit_with_fresh_statistics(model, session, training)
