"""Every optimizer and callback of the package under a strategy: run by workers, and by one device."""

import pathlib
import tempfile

import catalogue
import keras
import numpy as np
import tensorflow as tf
import test_callbacks_everywhere as everywhere

import tfopt
from workers import exactness


def train_on_workers() -> dict[str, list[np.ndarray]]:
    """On this worker's strategy."""
    return train(tfopt.distribute.make_strategy())


def train(strategy: tf.distribute.Strategy) -> dict[str, list[np.ndarray]]:
    """Weights, updates, losses of every optimizer, and of SGD with every callback."""
    results = {case.name: exactness.train(strategy, case.make) for case in catalogue.CASES}
    for name, make in everywhere.CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            callbacks = make(pathlib.Path(folder) / str(tfopt.distribute.worker_index(strategy)))
            steps = everywhere.ACCUMULATES.get(name, 1)
            results[name] = exactness.train(
                strategy,
                lambda steps=steps: accumulating(steps),
                model=network,
                callbacks=[lambda one=one: one for one in callbacks],
                epochs=3,
            )
    return results


def network() -> keras.Model:
    """One with what the callbacks look for: a head, and batch normalization, which must be synchronized."""
    layers = keras.layers
    middle = layers.BatchNormalization(synchronized=True)
    return keras.Sequential([keras.Input((8,)), layers.Dense(16), middle, layers.Dense(2, name="head")])


def accumulating(steps: int) -> keras.optimizers.Optimizer:
    """SGD, one update for so many batches."""
    inner = tfopt.optimizers.SGD(0.05)
    return inner if steps == 1 else tfopt.optimizers.GradientAccumulation(inner, steps)
