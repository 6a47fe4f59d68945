"""`autotune`: the main job at the settings that are fastest on this machine (`tfopt finetune --autotune`)."""

import dataclasses
import functools
import os
from typing import Any

import keras
import tensorflow as tf

from tfopt._checks import message
from tfopt.distribute import devices, spawn
from tfopt.distribute.cluster import read_cluster
from tfopt.distribute.precision import fast_policy
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.lr_find import second_stage
from tfopt.recipes.session import Session
from tfopt.recipes.sources import image_counts, load_images, size_of
from tfopt.recipes.starting import starting_model
from tfopt.tune.faster import FasterTraining
from tfopt.tune.throughput import default_space, tune_throughput
from tfopt.tune.training_setting import TrainingSetting

_TOGETHER = 8  # updates per call
_LOAD_SECONDS = 3600.0
_MANY = 8  # such calls per epoch at least: the average of the weights sees the end of each


def autotune(
    data: Any, config: FinetuneConfig, *, cache_dir: str | None = "auto"
) -> tuple[FinetuneConfig, FasterTraining]:
    """Measures how the second stage of `finetune` trains fastest, and sets that in the configuration.

    What is tried, unless the configuration says something else already:

    - whether XLA compiles the training step: the same arithmetic, rounded elsewhere;
    - several updates per call from Python, where an epoch has many: the same updates;
    - bfloat16 where the hardware has it: weights stay float32, and what comes out of the second stage is
      fitted, quantized, exported and measured on the test images in float32 as ever;
    - threads of the input alone: the same batches;
    - on a CPU, half the threads of TensorFlow, which belong to the process: unless it has started in this
      one already, or the environment sets them. The same arithmetic, added up in another order.

    The batch size, which changes what is learned, is left alone. That compilation takes its time is part of
    the price, and a training of less than a minute stays as it is. Takes a few minutes, once per machine,
    model and data; the answer is remembered. TensorFlow does not start in this process. For several replicas,
    what their `fit` refuses is not tried.

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
    started = devices.have_started()
    facts = (
        _facts(data, config)
        if started
        else spawn(_facts, 1, args=(data, config), timeout_seconds=_LOAD_SECONDS)[0]
    )
    if isinstance(facts, Exception):
        raise facts
    steps, epochs = facts
    space = _open_choices(config, steps, with_threads=not started)
    if not space:
        default = TrainingSetting(batch_size=config.batch_size)
        return config, FasterTraining(default, default, (), ())
    plain = dataclasses.replace(config, output="", overwrite=False)  # where it is written does not matter
    found = tune_throughput(
        functools.partial(_model, data, plain),
        functools.partial(_batches, data, plain),
        batch_size=config.batch_size,
        space=space,
        updates=max(1, epochs * steps),
        cache_dir=cache_dir,
    )
    chosen = {name: getattr(found.setting, name) for name in space}
    changes = {name: value for name, value in chosen.items() if value is not None}
    return dataclasses.replace(config, **changes), found


def _facts(data: Any, config: FinetuneConfig) -> tuple[int, int] | Exception:
    """Updates of an epoch and epochs of the second stage; or why the data cannot be read."""
    try:
        images = load_images(data, config)
        resolved = config.resolved(size_of(images))
    except Exception as error:
        return error
    return -(-image_counts(images)["train"] // config.batch_size), resolved.epochs


def _open_choices(config: FinetuneConfig, steps: int, with_threads: bool) -> dict[str, list[Any]]:
    """What may be tried: what the configuration leaves as it is by default, and makes sense here."""
    default = FinetuneConfig()
    gpu = bool(tf.config.list_physical_devices("GPU"))
    several = config.strategy == "mirrored" or devices.count("GPU") > 1 or bool(read_cluster(os.environ))
    every = default_space(_batches)
    space: dict[str, list[Any]] = {"data_threads": every["data_threads"]}
    if gpu or not several:
        space["jit_compile"] = [False, True]
    if with_threads and not several and "threads" in every and "TF_NUM_INTRAOP_THREADS" not in os.environ:
        space["threads"] = every["threads"]
    if fast_policy("GPU" if gpu else "CPU") == "mixed_bfloat16":
        space["precision"] = ["float32", "mixed_bfloat16"]
    if steps >= _MANY * _TOGETHER and not several:
        space["steps_per_execution"] = [1, _TOGETHER]
    return {name: values for name, values in space.items() if getattr(config, name) == getattr(default, name)}


def _model(data: Any, config: FinetuneConfig) -> keras.Model:
    session = Session.open(data, config)
    return second_stage(starting_model(session), session)


def _batches(data: Any, config: FinetuneConfig, batch_size: int) -> tf.data.Dataset:
    return Session.open(data, dataclasses.replace(config, batch_size=batch_size)).training()
