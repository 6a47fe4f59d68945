"""Stages of a recipe on the strategy of a test: its folder, its weights, who wrote what."""

import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfopt
from tfopt.distribute.workers import ChiefFailedError, Workers
from tfopt.recipes import common_folder
from tfopt.recipes.run import Run
from tfopt.recipes.run_folder import RunFolder
from tfopt.recipes.session import Session
from tfopt.recipes.stages import FineTuning, Head
from tfopt.recipes.starting import starting_model


def blocks(count: int) -> dict[str, Any]:
    """Noisy images of two brightnesses."""
    labels = np.arange(count) % 2
    noise = np.random.default_rng(0).integers(0, 150, (count, 8, 8, 3))
    images = (labels[:, None, None, None] * 60 + noise).astype("uint8")
    return dict.fromkeys(("train", "validation", "test"), (images, labels))


def network() -> keras.Model:
    """Without batch normalization and dropout, whose numbers depend on the replicas."""
    layers = keras.layers
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(layers.Rescaling(1 / 255, name="scale")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(2, "softmax", name="logits")(x))


def session_of(strategy: tf.distribute.Strategy, output: str, count: int = 48, **options: Any) -> Session:
    keras.utils.set_random_seed(0)
    options = {"model": network(), "batch_size": 16, "epochs": 1, "learning_rate": 0.01, **options}
    config = tfopt.FinetuneConfig(output=output, **options)
    return Session.open(blocks(count), config, strategy=strategy)


def trained(strategy: tf.distribute.Strategy, output: str, count: int = 48) -> dict[str, Any]:
    """Runs two stages in the folder; says what this worker has then."""
    session, stages, told = session_of(strategy, output, count), [Head(), FineTuning()], []
    start = starting_model(session)

    def make(path: str | None) -> RunFolder:
        return RunFolder(path or output, {"seed": 0}, False)

    with common_folder.opened(session.workers, make, told.append) as folder:
        run = Run(folder, session)
        weights = run.through(stages, lambda: start).get_weights()
        own = pathlib.Path(folder.path)
        shared = folder.meeting == pathlib.Path(output).resolve() or session.workers.count == 1
    seconds = [record.seconds for record in run.records]
    return {
        "weights": weights,
        "seconds": seconds,
        "own": str(own),
        "gone": not own.exists(),
        "shared": shared,
    }


def spawned(folder: str) -> dict[str, Any]:
    """What `tfopt.distribute.spawn` calls."""
    return on_workers(tfopt.distribute.make_strategy(), folder)


def on_workers(strategy: tf.distribute.Strategy, folder: str) -> dict[str, Any]:
    """A run, the same run again, one whose last batch is a single image; what a failing chief does."""
    first, again = (trained(strategy, f"{folder}/run") for _ in range(2))
    uneven = trained(strategy, f"{folder}/uneven", 49)["weights"]
    workers = Workers(strategy)
    content = bytes(range(256)) * 5 + b"end" if workers.is_chief else b""
    results = {"first": first, "again": again, "uneven": uneven, "sent": workers.from_chief(content)}
    results["answer"] = workers.alone(lambda: "the chief's")
    for name, call in {"failed": lambda: workers.alone(_fail), "differ": lambda: _differ(workers)}.items():
        try:
            call()
        except (ChiefFailedError, ValueError, OSError) as error:
            results[name] = f"{type(error).__name__}: {error}"
    return results


def _fail() -> str:
    raise OSError("no room")


def _differ(workers: Workers) -> None:
    workers.check_same("images", f"those of {workers.index}")
