"""All layers: gently for a pretrained model, from random weights otherwise."""

from typing import final

import keras

from tfopt import callbacks, optimizers
from tfopt.recipes.session import Session
from tfopt.recipes.stages.fit import Training, fit
from tfopt.recipes.stages.linear_head import refit_head
from tfopt.recipes.stages.stage import History, Stage


@final
class FineTuning(Stage):
    """Fine-tunes a pretrained model from the top down, or trains a random one; keeps the best epoch.

    Low layers keep their weights (`unfreeze`); of the others, higher ones learn faster. The batch-norm
    statistics and scales of a pretrained model stay: a small data set would estimate them worse. What is
    evaluated and kept is an average of the weights over the last epoch. In the end the head of a pretrained
    model is fitted once more, to the features after this training.
    """

    name = "fine-tuning"
    result = "float"
    refits_head = True
    LOWEST_MULTIPLIER = 0.06  # of the rate, at the first layer of a pretrained model

    def groups(self, model: keras.Model, session: Session) -> list[optimizers.Group]:
        """Freezes what does not train, and returns the groups of the optimizer."""
        pretrained = session.config.pretrained
        if pretrained:
            freeze_below(model, session.config.unfreeze)
        return [
            *optimizers.discriminative(model, self.LOWEST_MULTIPLIER if pretrained else 1.0),
            *optimizers.no_decay_on_norm_and_bias(model),
        ]

    def train(self, model: keras.Model, session: Session) -> History:
        """Trains `epochs` epochs with growing batches, if `batch_growth` asks for them."""
        config = session.config
        averaging = callbacks.WeightAveraging(
            decay=max(0.0, 1 - 1 / len(session.training())),
            batch_norm_data=None if config.pretrained else session.sample(augmented=True),
        )
        training = Training(
            self.name,
            config.epochs,
            config.learning_rate,
            lambda trained: self.groups(trained, session),
            [averaging],
            precision=config.precision,
            growth=config.batch_growth,
            patience=config.patience,
        )
        history = fit(model, session, training)
        if config.pretrained:
            refit_head(model, session)
        return history


def freeze_below(model: keras.Model, share: float) -> None:
    """Leaves the top `share` of the layers with weights trainable, without batch normalization."""
    weighted = [layer for layer in model.layers if layer.weights]
    first = len(weighted) - max(1, round(share * len(weighted)))
    for number, layer in enumerate(weighted):
        layer.trainable = number >= first and not isinstance(layer, keras.layers.BatchNormalization)


def unfreeze(model: keras.Model) -> None:
    """Makes every layer trainable."""
    model.trainable = False  # Keras ignores True where the model's own flag is True, whatever its layers' are
    model.trainable = True
