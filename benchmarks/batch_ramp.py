"""Batches of 16, of 128, and from 16 to 128: python benchmarks/batch_ramp.py [--quick] [--task digits].

On embedded digits and, if TFOPT_FLOWERS and TFOPT_WEIGHTS name them, on photographs with a pretrained
MobileNet 0.25 (the layers after block 6, at 96 pixels). All runs have the same epochs, a cosine over samples
seen and a rate that goes with the root of the batch size (AdamW). Three seeds, interleaved; times without
tracing.
"""

import argparse
import os
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import tfopt
from tfopt import callbacks as C
from tfopt import schedules as S

SMALL, LARGE = 16, 128
Part = tuple[np.ndarray, np.ndarray]
Task = tuple[keras.Model, Part, Part]


def arrays(part: tf.data.Dataset, size: int | None) -> Part:
    """Images and labels in memory."""
    if size:
        part = part.map(lambda image, label: (tf.image.resize(image, (size, size)), label))
    images, labels = zip(*part.as_numpy_iterator())
    return np.stack(images).astype("float32"), np.array(labels)


def digits() -> Task:
    """Three convolutions with batch norm on 8 x 8 pixels."""
    data = tfopt.data.load("digits")
    train, test = arrays(data.train, None), arrays(data.test, None)
    layers: list[Any] = [keras.Input(train[0].shape[1:]), keras.layers.Rescaling(1 / 255)]
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        layers.append(keras.layers.Conv2D(width, 3, stride, "same", use_bias=False))
        layers += [keras.layers.BatchNormalization(momentum=0.9), keras.layers.ReLU()]
    top = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10, "softmax")]
    return keras.Sequential([*layers, *top]), train, test


def flowers() -> Task:
    """The upper half of a pretrained MobileNet, on what the lower half makes of the photographs."""
    data = tfopt.data.load(os.environ["TFOPT_FLOWERS"])
    classes, weights = len(data.class_names), os.environ["TFOPT_WEIGHTS"]
    whole = tfopt.models.mobilenet("mobilenet", classes, image_size=96, alpha=0.25, weights=weights)
    middle = whole.get_layer("conv_pw_6_relu").output
    lower, upper = keras.Model(whole.input, middle), keras.Model(middle, whole.output)
    for layer in upper.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # 0.99 would lag behind in so few steps
    train, test = (arrays(part, 96) for part in (data.train, data.test))
    return upper, (lower.predict(train[0], verbose=0), train[1]), (lower.predict(test[0], verbose=0), test[1])


class Method:
    """One way to choose the batch size, with one training function for all seeds."""

    def __init__(self, task: Task, schedule: S.BatchSizeSchedule, options: argparse.Namespace) -> None:
        model, self.train, self.test = task
        self.schedule, self.epochs = schedule, options.epochs
        self.samples = len(self.train[0]) * options.epochs
        peak = options.rate * (schedule(0) / SMALL) ** 0.5
        self.model = keras.models.clone_model(model)
        self.model.set_weights(model.get_weights())
        self.first = self.model.get_weights()
        cosine = keras.optimizers.schedules.CosineDecay(peak, self.samples)
        self.optimizer = tfopt.optimizers.AdamW(S.BySample(cosine, schedule), weight_decay=0.01)
        loss = "sparse_categorical_crossentropy"
        self.model.compile(self.optimizer, loss, metrics=["accuracy"], jit_compile=False)
        self.optimizer.build(self.model.trainable_variables)
        self.start = [v.numpy() for v in self.optimizer.variables]

    def run(self, seed: int) -> tuple[float, float, int]:
        """Test accuracy, seconds and updates."""
        keras.utils.set_random_seed(seed)
        weights = [
            keras.initializers.HeNormal(seed + i)(w.shape).numpy() if self._is_new(w, i) else w
            for i, w in enumerate(self.first)
        ]
        self.model.set_weights(weights)
        for variable, value in zip(self.optimizer.variables, self.start):
            variable.assign(value)
        data = tf.data.Dataset.from_tensor_slices(self.train).shuffle(len(self.train[0]), seed=seed)
        batches = tfopt.data.ramped_batches(data, self.schedule, epochs=self.epochs)
        ramp = C.BatchSizeRamp(self.schedule, "sqrt")
        begin = time.perf_counter()
        self.model.fit(
            batches,
            epochs=self.epochs,
            steps_per_epoch=batches.steps_per_epoch,
            shuffle=False,
            verbose=0,
            callbacks=[ramp],
        )
        seconds = time.perf_counter() - begin
        accuracy = self.model.evaluate(*self.test, batch_size=256, verbose=0)[1]
        return accuracy, seconds, int(self.optimizer.iterations)

    def _is_new(self, weight: np.ndarray, index: int) -> bool:
        """The head of a pretrained network, or every kernel of a random one."""
        pretrained = len(self.first) > 20
        return weight.ndim > 1 and (index >= len(self.first) - 2 or not pretrained)


def compare(name: str, task: Task, options: argparse.Namespace) -> None:
    """Trains with every method and prints a table."""
    samples = len(task[1][0]) * options.epochs
    schedules = {
        f"fixed {SMALL}": S.Steps({0: SMALL}),
        f"fixed {LARGE}": S.Steps({0: LARGE}),
        f"{SMALL} to {LARGE}": S.doubling(SMALL, LARGE, samples, share=options.share),
    }
    methods = {title: Method(task, schedule, options) for title, schedule in schedules.items()}
    for method in methods.values():
        method.run(99)  # traces
    runs = {title: np.array([]) for title in methods}
    results: dict[str, list[tuple[float, float, int]]] = {title: [] for title in runs}
    for seed in range(options.seeds):
        for title, method in methods.items():
            results[title].append(method.run(seed))
    print(f"\n{name}: {len(task[1][0])} images, {options.epochs} epochs, {options.seeds} seeds")
    print(f"{'batch':<12}{'updates':>9}{'seconds':>9}{'accuracy':>10}{'+-':>8}   by seed")
    for title, rows in results.items():
        accuracies, seconds, updates = (np.array(column) for column in zip(*rows))
        each = " ".join(f"{100 * a:.1f}" for a in accuracies)
        spread = 100 * accuracies.std(ddof=1) if len(rows) > 1 else 0.0
        mean, seconds = 100 * accuracies.mean(), np.median(seconds)
        row = f"{title:<12}{updates[0]:>9}{seconds:>9.1f}{mean:>10.2f}{spread:>8.2f}   {each}"
        print(row, flush=True)


def main() -> None:
    """Prints a table for each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three epochs, one seed")
    parser.add_argument("--share", type=float, default=0.5, help="of the run, in which the batch grows")
    parser.add_argument("--task", choices=("digits", "flowers"), help="one of the two")
    options = parser.parse_args()
    options.seeds = 1 if options.quick else 3
    if options.task != "flowers":
        options.rate, options.epochs = 3e-3, 3 if options.quick else 12
        compare("digits", digits(), options)
    named = "TFOPT_FLOWERS" in os.environ and "TFOPT_WEIGHTS" in os.environ
    if options.task == "flowers" and not named:
        parser.error("flowers need the folder TFOPT_FLOWERS and the file TFOPT_WEIGHTS")
    if options.task != "digits" and named:
        options.rate, options.epochs = 1e-3, 3 if options.quick else 6
        compare("flowers", flowers(), options)


if __name__ == "__main__":
    main()
