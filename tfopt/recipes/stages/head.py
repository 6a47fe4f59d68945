"""The classifier alone, fitted to features that are computed once."""

from typing import final

import keras

from tfopt.recipes.session import Session
from tfopt.recipes.stages.linear_head import (
    MOST_ITERATIONS,
    check_features,
    compute_features,
    fit_linear,
    head_layer,
    scores,
)
from tfopt.recipes.stages.stage import History, Stage


@final
class Head(Stage):
    """Fits the head of a pretrained model to features of the images and of augmented views.

    The convolutions run once over each view instead of once per epoch, and the remaining problem is convex.
    """

    name = "head"
    result = "float"

    def train(self, model: keras.Model, session: Session) -> History:
        """Returns loss and decisive metric of both splits."""
        head, task = head_layer(model), session.task
        train, validation = compute_features(model, head, session)
        check_features(train)
        with session.progress.bar("training the head", MOST_ITERATIONS) as bar:
            weights = fit_linear(train, task.fit_of_head, bar)
            history = {
                prefix + key: value
                for prefix, examples in (("", train), ("val_", validation))
                for key, value in scores(examples, weights, task).items()
            }
            bar.show(task.progress_text(history))
        head.set_weights(weights)
        return {key: [value] for key, value in history.items()}
