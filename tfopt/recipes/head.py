"""Stage 1: the classifier alone, trained on features that are computed once."""

import keras
import numpy as np
import tensorflow as tf

from tfopt import optimizers
from tfopt.recipes.best import KeepBest
from tfopt.recipes.progress import EpochProgress
from tfopt.recipes.setting import Setting

MOST_VIEWS = 8
ENOUGH_EXAMPLES = 6000  # augmented views of each image are made until there are about this many
BATCH_SIZE = 64
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-4

Examples = tuple[np.ndarray, np.ndarray]


def head_layer(model: keras.Model) -> keras.layers.Dense:
    """The last layer with weights: what a linear probe trains.

    Raises:
        ValueError: If it is not dense.
    """
    weighted = [layer for layer in model.layers if layer.weights]
    if not weighted or not isinstance(weighted[-1], keras.layers.Dense):
        expected = "a model whose last layer with weights is dense, to be fine-tuned"
        raise ValueError(f"`model` must be {expected}. Received: {model.name!r}.")
    return weighted[-1]


def train_head(model: keras.Model, setting: Setting) -> dict[str, list[float]]:
    """Fits the head on features of the images as they are and of augmented views; returns its curves.

    The convolutions run once over each view instead of once per epoch. The best epoch is kept.
    """
    head = head_layer(model)
    train, validation = compute_features(model, head, setting)
    return fit_head(head, train, validation, setting)


def compute_features(
    model: keras.Model, head: keras.layers.Dense, setting: Setting
) -> tuple[Examples, Examples]:
    """(features, one-hot labels) of the training views and of the validation split."""
    # In inference a dropout in front of the head passes its input on, so the head's input is the feature.
    extractor = keras.Model(model.input, head.input)
    extract = tf.function(lambda images: extractor(images, training=False), reduce_retracing=True)
    passes = [setting.plain("validation"), setting.plain("train")]
    if setting.config.augment is not None:
        examples = sum(setting.images.class_counts["train"])
        views = int(np.clip(round(ENOUGH_EXAMPLES / examples), 1, MOST_VIEWS))
        passes += [setting.training(shuffle=False, first_epoch=view) for view in range(views)]
    found = []
    with setting.progress.bar("computing features", sum(len(batches) for batches in passes)) as bar:
        for batches in passes:
            parts = []
            for images, labels in batches:
                parts.append((extract(images).numpy(), labels.numpy()))
                bar.advance()
            found.append(tuple(np.concatenate(arrays) for arrays in zip(*parts)))
    features, labels = (np.concatenate(arrays) for arrays in zip(*found[1:]))
    return (features, labels), found[0]


def fit_head(
    head: keras.layers.Dense, train: Examples, validation: Examples, setting: Setting
) -> dict[str, list[float]]:
    """Logistic regression with dropout and label smoothing; writes the best epoch into the head."""
    config = setting.config
    probe = keras.Sequential(
        [
            keras.Input(train[0].shape[1:]),
            keras.layers.Dropout(config.dropout),
            keras.layers.Dense(head.units, kernel_initializer="zeros"),
        ]
    )
    updates = config.head_epochs * -(-len(train[0]) // BATCH_SIZE)
    probe.compile(
        optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(LEARNING_RATE, updates), weight_decay=WEIGHT_DECAY
        ),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing),
        metrics=["accuracy"],
    )
    best = KeepBest()
    with setting.progress.bar("training the head", config.head_epochs) as bar:
        history = probe.fit(
            *train,
            validation_data=validation,
            batch_size=BATCH_SIZE,
            epochs=config.head_epochs,
            verbose=0,
            callbacks=[best, EpochProgress(bar)],
        ).history
    head.set_weights(probe.layers[-1].get_weights())
    return history
