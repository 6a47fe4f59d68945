"""Kernels brought to a sparsity while the model trains."""

from typing import final

import keras

from tfopt import compress, optimizers
from tfopt.compress.planning import prunings
from tfopt.recipes.session import Session
from tfopt.recipes.stages.fine_tuning import unfreeze
from tfopt.recipes.stages.fit import Training, fit_with_fresh_statistics
from tfopt.recipes.stages.quantization import imitation, in_small_batches
from tfopt.recipes.stages.stage import History, Stage


@final
class Pruning(Stage):
    """Brings every large kernel to the wanted sparsity while all layers train; keeps the last epoch.

    Args:
        sparsity: Share of each kernel that becomes zero, in (0, 1), or a share by the name of each kernel.
        teacher: The dense model, whose answers are then learned instead of the labels; None: the labels.
    """

    name = "pruning"
    result = "pruned"
    # Shares of the learning rate. A model that was fine-tuned gently has to learn again what it lost.
    RATE, PRETRAINED_RATE, TAUGHT_RATE = 0.5, 5.0, 10.0

    def __init__(self, sparsity: float | dict[str, float], teacher: keras.Model | None = None) -> None:
        self.sparsity, self.teacher = sparsity, teacher

    def train(self, model: keras.Model, session: Session) -> History:
        """Trains `compress_epochs` epochs."""
        unfreeze(model)  # a pruned kernel that is frozen could not recover
        config = session.config
        callbacks: list[keras.callbacks.Callback] = (
            [compress.Pruning(self.sparsity)]
            if isinstance(self.sparsity, float)
            else [*prunings(model, self.sparsity)]
        )
        if self.teacher is None:
            share, precision = (self.PRETRAINED_RATE if config.pretrained else self.RATE), config.precision
        else:
            share, precision = self.TAUGHT_RATE, "float32"
            session, callbacks = in_small_batches(session), [*callbacks, imitation(self.teacher, session)]
        training = Training(
            self.name,
            config.compress_epochs,
            share * config.learning_rate,
            optimizers.no_decay_on_norm_and_bias,
            callbacks,
            keep_best=False,
            precision=precision,
        )
        return fit_with_fresh_statistics(model, session, training)
