"""A training script for `tfopt launch --data-workers`: FOLDER. Notes what arrived, then trains."""

import json
import pathlib
import sys

import keras
import tensorflow as tf

import tfopt


def main(folder: pathlib.Path) -> None:
    strategy = tfopt.distribute.make_strategy()
    if tfopt.distribute.describe(strategy).workers == 1:
        numbers = tfopt.distribute.prepare_remotely(tf.data.Dataset.range(64).batch(8), name="numbers")
        arrived = [int(number) for batch in numbers for number in batch]
        (folder / "arrived.json").write_text(json.dumps(arrived))
    examples = (
        tf.data.Dataset.range(64).map(lambda n: (tf.cast([n], tf.float32) / 64, [1.0])).repeat().batch(4)
    )
    with strategy.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
        model.compile("sgd", "mse", jit_compile=False)
    history = model.fit(
        tfopt.distribute.prepare_remotely(examples), epochs=2, steps_per_epoch=10, verbose=0
    ).history
    index = tfopt.distribute.worker_index(strategy)
    (folder / f"losses-{index}.json").write_text(json.dumps(history["loss"]))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
