"""What every callback costs: python benchmarks/callbacks.py [--quick].

One `fit` of MobileNet 0.25 at 224 pixels, batches of 32, with all callbacks; the hooks of each are timed, and
so is, on its own, what they add to the graph. Time is that of the CPU in the whole process, since on a busy
machine a clock on the wall counts the others too; wall time stands beside it.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from ratios import record

import tfopt
from tfopt import callbacks as C
from tfopt import schedules as S
from tfopt.callbacks.gradient_noise_scale import NoiseMeter
from tfopt.callbacks.training_monitor import Counters

BATCH, STEPS = 32, 2
HOOKS = [f"on_{what}_{when}" for what in ("epoch", "train_batch") for when in ("begin", "end")]


def now() -> np.ndarray:
    """CPU seconds of the process, seconds on the wall."""
    return np.array([time.process_time(), time.perf_counter()])


class Clock:
    """Adds up the time in the hooks of a callback."""

    def __init__(self, callback: keras.callbacks.Callback) -> None:
        self.name, self.spent = type(callback).__name__, np.zeros(2)
        for hook in HOOKS:
            setattr(callback, hook, self._timed(getattr(callback, hook)))

    def _timed(self, function: Callable) -> Callable:
        def timed(*arguments: Any, **options: Any) -> None:
            begin = now()
            function(*arguments, **options)
            self.spent += now() - begin

        return timed


def all_callbacks(folder: str, batches: tf.data.Dataset, updates: int) -> list[keras.callbacks.Callback]:
    """One of each."""
    return [
        C.Resume(folder, batches),
        C.Unfreeze({0: 1.0}, train_batch_norm=True),
        C.LearningRateDecay(keras.optimizers.schedules.CosineDecay(1e-3, updates)),
        C.BatchSizeRamp(S.Steps({0: STEPS * BATCH}), "auto"),
        C.WeightAveraging(decay=0.9),
        C.GradientNoiseScale(),
        C.NoiseScaleRamp(BATCH, STEPS),
        C.PlateauDecay("loss"),
        C.TimeBudget(1e6),
        C.TrainingMonitor(),
    ]


def fit(images: int, epochs: int) -> None:
    """Trains, and prints a table; the first epoch only traces."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (images, 224, 224, 3)).astype("uint8")
    source = tf.data.Dataset.from_tensor_slices((pixels, rng.integers(0, 12, images)))
    batches = tfopt.data.pipeline(source, BATCH)
    model = tfopt.models.mobilenet("mobilenet", 12, image_size=224, alpha=0.25)
    optimizer = tfopt.optimizers.GradientAccumulation(tfopt.optimizers.AdamW(1e-3), STEPS)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    begun = np.zeros(2)

    def start(epoch: int, logs: Any) -> None:
        if epoch == 1:
            begun[:] = now()
            for clock in clocks:
                clock.spent[:] = 0.0

    with tempfile.TemporaryDirectory() as folder:
        callbacks = all_callbacks(folder, batches, epochs * len(batches) // STEPS)
        clocks = [Clock(callback) for callback in callbacks]
        watch = keras.callbacks.LambdaCallback(on_epoch_begin=start)
        model.fit(batches, epochs=epochs, shuffle=False, verbose=0, callbacks=[*callbacks, watch])
        spent = now() - begun
    steps = (epochs - 1) * len(batches)
    cpu, wall = 1e3 * spent / steps
    print(f"batch {BATCH}: {cpu:.0f} ms of CPU per step, {wall:.0f} ms on the wall; {steps} steps")
    print(f"{'callback':<20}{'CPU ms per step':>16}{'share':>8}{'wall share':>12}")
    graph = in_graph(model)
    rows = [(c.name, c.spent + steps * graph.get(c.name, np.zeros(2))) for c in clocks]
    rows.append(("all together", np.sum([values for _, values in rows], 0)))
    for name, values in rows:
        share = values / spent
        record(f"callbacks: step without {name} over step with", 1 - share[0])
        print(f"{name:<20}{1e3 * values[0] / steps:>16.3f}{share[0]:>8.2%}{share[1]:>12.2%}")


def in_graph(model: keras.Model) -> dict[str, np.ndarray]:
    """Time per step of what callbacks add to the training step, run alone: the median of many."""
    strategy = tf.distribute.get_strategy()
    gradients = [tf.random.normal(v.shape) for v in model.trainable_variables]
    data = (tf.zeros((BATCH, 224, 224, 3)), tf.zeros((BATCH,)))
    counters, meter = Counters(strategy), NoiseMeter(strategy, 0.99, 1)

    def count() -> None:
        counters.before(data)
        counters.after(gradients[0])

    def measure() -> None:
        meter.count(data)
        meter.add(gradients)
        meter.close(gradients)

    result = {}
    for name, function in (("TrainingMonitor", count), ("GradientNoiseScale", measure)):
        graph, times = tf.function(function), []
        for _ in range(60):
            begin = now()
            graph()
            times.append(now() - begin)
        result[name] = np.median(times[10:], 0)
    return result


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps")
    options = parser.parse_args()
    fit(images=128 if options.quick else 512, epochs=2)


if __name__ == "__main__":
    main()
