"""`find_learning_rate`: which peak rate suits this model and these images?"""

import dataclasses
import pathlib
from typing import Any

import keras
import tensorflow as tf

from tfopt import callbacks, data, optimizers
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.resolved_config import ResolvedConfig
from tfopt.recipes.stages import LOWEST_MULTIPLIER, freeze_below, rule_of


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

    Example:
        >>> finder = find_learning_rate("photos/", weights="imagenet")
        >>> result = tfopt.finetune("photos/", weights="imagenet", learning_rate=finder.suggestion)
    """
    config = dataclasses.replace(config or FinetuneConfig(), **overrides)
    keras.utils.set_random_seed(config.seed)
    model, batches = second_stage(source, config)
    finder = callbacks.LearningRateFinder(minimum, maximum, steps)
    finder.test(model, batches, shuffle=False)
    if plot is not None:
        finder.plot(plot)
    return finder


def second_stage(source: Any, config: FinetuneConfig) -> tuple[keras.Model, tf.data.Dataset]:
    """The compiled model and the batches of the second stage of `finetune`, for measurements."""
    images = data.load(source, seed=config.seed, on_bad_image=config.on_bad_image)
    height, width = images.train.element_spec[0].shape[:2]
    resolved = config.resolved(None if height is None else (height, width))
    classes = len(images.class_names)
    batches = data.pipeline(
        images.train,
        resolved.batch_size,
        image_size=resolved.image_size,
        augment=resolved.augment,
        seed=resolved.seed,
        classes=classes,
    )
    return _compiled(resolved, classes), _one_hot(batches, classes)


def _compiled(config: ResolvedConfig, classes: int) -> keras.Model:
    model = config.build_model(classes)
    if config.pretrained:
        freeze_below(model, config.unfreeze)
    groups = [
        *optimizers.discriminative(model, LOWEST_MULTIPLIER if config.pretrained else 1.0),
        *optimizers.no_decay_on_norm_and_bias(model),
    ]
    model.compile(
        optimizers.ParameterGroups(rule_of(config, 1e-3), groups),
        keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing),
    )
    return model


def _one_hot(batches: Any, classes: int) -> Any:
    if batches.element_spec[1].dtype.is_floating:
        return batches  # mixed labels
    return batches.map(lambda images, labels: (images, keras.ops.one_hot(labels, classes)))
