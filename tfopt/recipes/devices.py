"""What the options of a recipe say to train under."""

import os

import tensorflow as tf

from tfopt import distribute
from tfopt.distribute.cluster import read_cluster
from tfopt.recipes.config import FinetuneConfig


def strategy_of(config: FinetuneConfig) -> tf.distribute.Strategy:
    """What the options say to train under; to be asked for before anything else uses TensorFlow.

    Raises:
        ValueError: If each of several workers would train a model of its own.
    """
    found = read_cluster(os.environ)
    if found is not None and config.strategy not in ("auto", "multiworker"):
        raise ValueError(
            f"`strategy` must be 'auto' or 'multiworker' where {found.source} names {len(found.workers)} "
            f"workers, which would all write one folder. Received: strategy={config.strategy!r}. Or start "
            "without `tfopt launch`."
        )
    threads = None if config.threads == "auto" else config.threads
    return distribute.make_strategy(config.strategy, threads=threads)
