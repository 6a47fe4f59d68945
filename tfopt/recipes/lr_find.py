"""`find_learning_rate`: which peak rate suits this model and these images?"""

import pathlib
from typing import Any

import keras

from tfopt import callbacks, optimizers
from tfopt._optional import require
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.session import Session
from tfopt.recipes.stages import FineTuning, Head
from tfopt.recipes.stages.fit import compiled
from tfopt.recipes.stages.linear_head import find_head
from tfopt.recipes.stages.optimizer import rule_of
from tfopt.recipes.starting import starting_model


def find_learning_rate(
    source: Any,
    config: FinetuneConfig | None = None,
    *,
    minimum: float = 1e-6,
    maximum: float = 1.0,
    steps: int = 100,
    plot: str | pathlib.Path | None = None,
    **overrides: Any,
) -> callbacks.LearningRateFinder:
    """Runs a range test with the model, optimizer and data of the second stage of `finetune`.

    The head of a pretrained model is fitted first, as in `finetune`.

    Give its suggestion to `finetune(learning_rate=...)`. Trains for `steps` batches and keeps nothing.

    Args:
        source: What `tfopt.data.load` takes.
        config: Options of `finetune`; those about compression and output mean nothing here.
        minimum: First rate, > 0.
        maximum: Last rate, > `minimum`.
        steps: Rates to try, >= 10.
        plot: File for the curve, such as "rates.png"; None draws nothing.
        **overrides: Fields of `FinetuneConfig` that replace those of `config`.

    Returns:
        The `LearningRateFinder`, with `suggestion`, `rates` and `losses`.

    Raises:
        ValueError: If an option or the data does not fit.
        ImportError: If `plot` is given and matplotlib is not installed.

    Example:
        >>> finder = find_learning_rate("photos/", weights="imagenet")
        >>> result = tfopt.finetune("photos/", weights="imagenet", learning_rate=finder.suggestion)
    """
    if plot is not None:
        require("matplotlib.figure", "Drawing the curve")  # before the search, whose result would be lost
    session = Session.open(source, (config or FinetuneConfig()).changed(**overrides))
    model = starting_model(session)
    if session.config.pretrained and find_head(model) is not None:
        Head().train(model, session)
    model = second_stage(model, session)
    finder = callbacks.LearningRateFinder(minimum, maximum, steps)
    finder.test(model, session.training(), shuffle=False)
    if plot is not None:
        finder.plot(pathlib.Path(plot).expanduser())
    return finder


def second_stage(model: keras.Model, session: Session) -> keras.Model:
    """The model to train, compiled as the second stage of `finetune` does, at a constant rate."""
    model = session.training_copy(model)
    groups = FineTuning().groups(model, session)
    with session.strategy.scope():
        rule = rule_of(session.config, session.config.learning_rate)
        return compiled(model, session, optimizers.ParameterGroups(rule, groups))
