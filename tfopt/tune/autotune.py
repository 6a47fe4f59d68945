"""`autotune`: the main job at the settings that are fastest on this machine (`tfopt finetune --autotune`)."""

import dataclasses
import functools
from typing import Any

import keras
import tensorflow as tf

from tfopt._checks import message
from tfopt.data import load
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.lr_find import second_stage
from tfopt.tune.faster import FasterTraining
from tfopt.tune.throughput import tune_throughput


def autotune(
    data: Any, config: FinetuneConfig, *, cache_dir: str | None = "auto"
) -> tuple[FinetuneConfig, FasterTraining]:
    """Measures how the second stage of `finetune` trains fastest, and sets that in the configuration.

    Only what leaves the result as it is gets changed: whether XLA compiles the training step. That the
    compilation takes its time is part of the price, so a short training stays as it is. Takes a minute or
    two, once per machine, model and data; the answer is remembered.

    Args:
        data: What `tfopt.data.load` takes.
        config: Options of the run, whose `model` is a name.
        cache_dir: As in `tune_throughput`.

    Returns:
        The configuration to train with, and what was measured.

    Raises:
        ValueError: If the model is an object, which another process cannot make.

    Example:
        >>> config, found = autotune("photos/", FinetuneConfig(weights="imagenet"))
        >>> print(found)
        >>> result = tfopt.finetune("photos/", config)
    """
    if not isinstance(config.model, str):
        raise ValueError(message("config.model", "the name of a network", config.model.name))
    images = load(data, seed=config.seed, on_bad_image=config.on_bad_image)
    height, width = images.train.element_spec[0].shape[:2]
    resolved = config.resolved(None if height is None else (height, width))
    updates = resolved.epochs * -(-sum(images.class_counts["train"]) // config.batch_size)
    plain = dataclasses.replace(config, output="", overwrite=False)  # where it is written does not matter
    found = tune_throughput(
        functools.partial(_model, data, plain),
        functools.partial(_batches, data, plain),
        batch_size=config.batch_size,
        space={"jit_compile": [False, True]},
        updates=max(1, updates),
        cache_dir=cache_dir,
    )
    if found.setting.jit_compile is not None:
        config = dataclasses.replace(config, jit_compile=found.setting.jit_compile)
    return config, found


def _model(data: Any, config: FinetuneConfig) -> keras.Model:
    return second_stage(data, config)[0]


def _batches(data: Any, config: FinetuneConfig, batch_size: int) -> tf.data.Dataset:
    return second_stage(data, dataclasses.replace(config, batch_size=batch_size))[1]
