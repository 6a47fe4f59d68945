"""What the worker processes of a test do: called by `tfopt.distribute.spawn`, so they start afresh."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tfopt
from tfopt.callbacks._agreement import Agreement
from workers import exactness


def train_everything(cases: list[str]) -> dict[str, Any]:
    """Every case on this worker's strategy: name -> arrays."""
    strategy = tfopt.distribute.make_strategy()
    results: dict[str, Any] = {name: exactness.ALL[name](strategy) for name in cases}
    results |= {"masks": masks(strategy), "agreed": agreed(strategy), "refused": refused(strategy)}
    return results | {"description": tfopt.distribute.describe(strategy)}


def agreed(strategy: tf.distribute.Strategy) -> list[Any]:
    """What the workers decide together when only the last one has a wish, and when numbers differ."""
    agreement, worker = Agreement(strategy, 2), tfopt.distribute.worker_index(strategy)
    wishes = [agreement.any(worker == 1, False, now=True)]
    wishes += [agreement.any(False, worker == 1) for _ in range(40)]
    return [*wishes, agreement.same(7), agreement.same(worker)]


def refused(strategy: tf.distribute.Strategy) -> list[str]:
    """What `sharded` says to workers that all read the same part, and to those with seeds of their own."""
    worker, messages = tfopt.distribute.worker_index(strategy), []
    for wrong in ({"shard": (0, 2)}, {"shard": (worker, 2), "seed": worker}):

        def make(size: int, shard: tuple[int, int], wrong: dict = wrong) -> tf.data.Dataset:
            return tfopt.data.pipeline(exactness.images(), size, image_size=2, **wrong)

        try:
            tfopt.distribute.sharded(strategy, make, 16)
        except ValueError as error:
            messages.append(str(error))
    return messages


def masks(strategy: tf.distribute.Strategy) -> list[np.ndarray]:
    """This worker's dropout masks from the same seed, twice."""
    drawn = []
    for _ in range(2):
        with strategy.scope():
            layer = keras.layers.Dropout(0.5, seed=1)
        values = strategy.run(tf.function(lambda layer=layer: layer(tf.ones(64), training=True)))
        drawn.append(strategy.experimental_local_results(values)[0].numpy() > 0)
    return drawn
