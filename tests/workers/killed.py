"""A training script for `tfopt launch` that dies where it is told: FOLDER DATA [WORKER:UPDATE[:SIGNAL]]...

The k-th argument is for attempt k, which ends at that update; the last attempt writes its weights. Signal 0
ends nothing: the update takes 30 s.
"""

import os
import pathlib
import sys
import time

import keras
import numpy as np
import tensorflow as tf

import tfopt

EPOCHS = 4


def data(kind: str, strategy):
    pixels = np.random.default_rng(0).integers(0, 256, (96, 4, 4, 3)).astype("uint8")
    examples = tf.data.Dataset.from_tensor_slices((pixels, np.arange(96) % 3))
    if kind == "arrays":
        return examples.batch(12)
    augment = tfopt.data.Augment(shift=0.2)
    if kind == "pipeline":
        return tfopt.data.pipeline(examples, 12, image_size=4, augment=augment)

    def make(size, shard):
        return tfopt.data.pipeline(examples, size, image_size=4, augment=augment, shard=shard)

    return tfopt.distribute.sharded(strategy, make, 12)


def compiled(strategy) -> keras.Model:
    layers = keras.layers
    stack = [layers.Rescaling(1 / 255), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Flatten()]
    with strategy.scope():
        model = keras.Sequential(
            [keras.Input((4, 4, 3)), *stack, layers.Dropout(0.3), layers.Dense(3, activation="softmax")]
        )
        optimizer = tfopt.optimizers.Lookahead(tfopt.optimizers.AdamW(1e-2), sync_period=3)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


def death(folder: pathlib.Path, worker: int, optimizer, deaths: list[str]):
    """Ends this worker by a signal if the attempt's argument says so, and notes when.

    A function, since `Resume` brings the attributes of a callback back.
    """
    attempt = int(os.environ.get("TFOPT_ATTEMPT", 0))
    who, update, number = (
        [*map(int, deaths[attempt].split(":")), 9][:3] if attempt < len(deaths) else (0, 0, 0)
    )

    def on_train_batch_end(batch, logs):
        if who == worker and optimizer.iterations.numpy() == update:
            (folder / "died").touch()
            time.sleep(0 if number else 30)
            os.kill(os.getpid(), number)

    return on_train_batch_end


def main(folder: pathlib.Path, kind: str, *deaths: str) -> None:
    strategy = tfopt.distribute.make_strategy()
    keras.utils.set_random_seed(0)
    worker = tfopt.distribute.worker_index(strategy)
    model, batches = compiled(strategy), data(kind, strategy)
    known = None if kind == "arrays" else batches
    resume = tfopt.callbacks.Resume(folder / "checkpoints", known, every_batches=3)
    die = death(folder, worker, model.optimizer, list(deaths))
    kill = keras.callbacks.LambdaCallback(on_train_batch_end=die)
    callbacks = [resume, tfopt.callbacks.WeightAveraging(decay=0.9), kill]
    history = model.fit(batches, epochs=EPOCHS, verbose=0, callbacks=callbacks, shuffle=False).history
    arrays = [*model.get_weights(), model.optimizer.iterations.numpy(), *map(np.array, history.values())]
    np.savez(folder / f"end-{worker}.npz", *arrays)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *sys.argv[2:])
