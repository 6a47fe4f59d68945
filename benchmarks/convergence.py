"""How well optimizers train when each has its own tuned rate: python benchmarks/convergence.py [TASK...].

"digits": a small convolutional network from scratch. "flowers" (set TFOPT_FLOWERS to a folder of images
and TFOPT_WEIGHTS to weights of MobileNet 0.25): fine-tunes the upper half of the network on features of
the frozen lower half, computed once. The rate is chosen by validation loss with a seed of its own, on a
grid of half decades that grows until the best lies inside; then three other seeds are judged on the test
part. All make the same steps with the same cosine per epoch, Schedule-Free none.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import tfopt
import tfopt.optimizers as to
from tfopt import _batch_norm, _plot

DECAY = 0.05
CONTENDERS: dict[str, tuple[Callable[[], Any], float]] = {  # maker, first rate of the grid
    "AdamW": (lambda: to.AdamW(1.0, DECAY), 3e-3),
    "SGD momentum": (lambda: to.SGD(1.0, 0.9, nesterov=True, weight_decay=1e-3), 0.1),
    "Lion": (lambda: to.Lion(1.0, weight_decay=10 * DECAY), 3e-4),
    "LAMB": (lambda: to.LAMB(1.0), 1e-2),
    "Adan": (lambda: to.Adan(1.0, weight_decay=DECAY), 3e-3),
    "Prodigy": (lambda: to.Prodigy(1.0, weight_decay=DECAY), 1.0),
    "ScheduleFreeAdamW": (lambda: to.ScheduleFreeAdamW(1.0, warmup_steps=20, weight_decay=DECAY), 1e-2),
    "Muon": (lambda: to.Muon(1.0, weight_decay=DECAY), 3e-3),
    "Adafactor(momentum=0.9)": (lambda: to.Adafactor(1.0, momentum=0.9, weight_decay=DECAY), 1e-2),
    "SM3": (lambda: to.SM3(1.0, weight_decay=DECAY), 0.1),
    "SOAP": (lambda: to.SOAP(1.0, weight_decay=DECAY), 3e-3),
    "Cautious(AdamW)": (lambda: to.Cautious(to.AdamW(1.0, DECAY)), 3e-3),
    "Lookahead(AdamW)": (lambda: to.Lookahead(to.AdamW(1.0, DECAY)), 3e-3),
}


@dataclass(frozen=True)
class Task:
    """Arrays of each part, a network that fits them, and its first weights for a seed."""

    parts: dict[str, tuple[np.ndarray, np.ndarray]]
    model: keras.Model
    first_weights: Callable[[int], list[np.ndarray]]


def arrays(source: str, size: int | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels of each part, in memory."""
    data, result = tfopt.data.load(source), {}
    for name in ("train", "validation", "test"):
        part = getattr(data, name)
        if size:
            part = part.map(lambda image, label: (tf.image.resize(image, (size, size)), label))
        images, labels = zip(*part.as_numpy_iterator())
        result[name] = (np.stack(images).astype("float32"), np.array(labels))
    return result


def digits() -> Task:
    """Three convolutions with batch norm, 24,000 weights."""
    parts = arrays("digits", None)
    images = parts["train"][0]

    def network(seed: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        layers: list[Any] = [keras.Input(images.shape[1:]), keras.layers.Rescaling(1 / images.max())]
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            layers.append(keras.layers.Conv2D(width, 3, stride, "same", use_bias=False))
            layers += [keras.layers.BatchNormalization(), keras.layers.ReLU()]
        return keras.Sequential(
            [*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10, "softmax")]
        )

    return Task(parts, network(0), lambda seed: network(seed).get_weights())


def flowers() -> Task:
    """The layers of MobileNet 0.25 after its sixth block, pretrained, with a new head."""
    parts = arrays(os.environ["TFOPT_FLOWERS"], 96)
    classes = int(parts["train"][1].max()) + 1
    weights = os.environ["TFOPT_WEIGHTS"]
    whole = tfopt.models.mobilenet("mobilenet", classes, image_size=96, alpha=0.25, weights=weights)
    middle = whole.get_layer("conv_pw_6_relu").output
    lower, upper = keras.Model(whole.input, middle), keras.Model(middle, whole.output)
    features = {
        name: (lower.predict(images, batch_size=128, verbose=0), y) for name, (images, y) in parts.items()
    }
    *body, kernel, bias = upper.get_weights()

    def first_weights(seed: int) -> list[np.ndarray]:
        head = keras.initializers.GlorotUniform(seed)(kernel.shape)
        return [*body, keras.ops.convert_to_numpy(head), bias]

    return Task(features, upper, first_weights)


class Contender:
    """One network and one training function for all rates and seeds of an optimizer."""

    def __init__(self, make: Callable[[], Any], task: Task, epochs: int):
        self.task, self.epochs, self.optimizer = task, epochs, make()
        for layer in task.model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.9  # 0.99 would lag behind in so few steps
        task.model.compile(
            self.optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False
        )
        self.optimizer.build(task.model.trainable_variables)
        self.start = [v.numpy() for v in self.optimizer.variables]

    def run(self, rate: float, seed: int, judge: str) -> tuple[list[float], list[float]]:
        """(loss, accuracy) on a part, and the training loss of every epoch."""
        model = self.task.model
        model.set_weights(self.task.first_weights(seed))
        for variable, value in zip(self.optimizer.variables, self.start):
            variable.assign(value)
        train = tf.data.Dataset.from_tensor_slices(self.task.parts["train"])
        batches = train.shuffle(len(train), seed=seed).batch(32, drop_remainder=True)

        def rate_of(epoch: int) -> float:
            if isinstance(self.optimizer, to.ScheduleFreeAdamW):
                return rate
            return rate * 0.5 * (1 + float(np.cos(np.pi * epoch / self.epochs)))

        callbacks = [keras.callbacks.LearningRateScheduler(rate_of)]
        history = model.fit(batches, epochs=self.epochs, callbacks=callbacks, shuffle=False, verbose=0)
        if isinstance(self.optimizer, to.ScheduleFreeAdamW):
            averages = self.optimizer.average_values(model.trainable_variables)
            for variable, value in zip(model.trainable_variables, averages):
                variable.assign(value)
            _batch_norm.reestimate(model, train.batch(128))
        return model.evaluate(*self.task.parts[judge], batch_size=256, verbose=0), history.history["loss"]

    def tuned(self, first: float, quick: bool) -> tuple[float, float]:
        """The rate of lowest validation loss and that loss."""
        losses: dict[float, float] = {}

        def measure(exponent: float) -> None:
            loss = self.run(first * 10**exponent, 100, "validation")[0][0]
            losses[exponent] = loss if np.isfinite(loss) else np.inf

        for exponent in (0.0,) if quick else (-0.5, 0.0, 0.5):
            measure(exponent)
        while not quick:
            best = min(losses, key=lambda e: losses[e])
            beyond = [e for e in (best - 0.5, best + 0.5) if e not in losses]
            if not beyond or len(losses) == 7:
                break
            measure(beyond[0])
        best = min(losses, key=lambda e: losses[e])
        return first * 10**best, losses[best]


def compare(name: str, task: Task, options: argparse.Namespace) -> None:
    """Prints the table of a task, one line as soon as an optimizer is done."""
    images = task.parts["train"][1]
    print(f"{name}: {len(images)} training images, {options.epochs} epochs of {len(images) // 32} steps")
    print(f"{'optimizer':20s} {'rate':>8s} {'validation':>10s}   test accuracy, mean and range   s/run")
    curves = {}
    for title in options.only:
        make, first = CONTENDERS[title]
        contender = Contender(make, task, options.epochs)
        rate, validation = contender.tuned(first, options.quick)
        start = time.perf_counter()
        runs = [contender.run(rate, seed, "test") for seed in range(options.seeds)]
        seconds = (time.perf_counter() - start) / options.seeds
        scores = [100 * score for (_, score), _ in runs]
        curves[title] = np.mean([losses for _, losses in runs], axis=0).tolist()
        print(
            f"{title:20s} {rate:8.2g} {validation:10.3f} {np.mean(scores):14.2f}% "
            f"[{min(scores):.2f}, {max(scores):.2f}] {seconds:10.1f}",
            flush=True,
        )
    if options.plot:
        path = options.plot.format(task=name)
        epochs = list(range(1, options.epochs + 1))
        _plot.save_lines(path, epochs, curves, x_label="epoch", y_label="training loss")


def main() -> None:
    """Compares the contenders on each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    available = ["digits"] + ["flowers"] * ("TFOPT_FLOWERS" in os.environ and "TFOPT_WEIGHTS" in os.environ)
    parser.add_argument("tasks", nargs="*", default=available, help="digits, flowers; default: what is there")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS), help="names of optimizers")
    parser.add_argument("--plot", default="", help='file of the loss curves, such as "{task}.png"')
    parser.add_argument("--quick", action="store_true", help="two epochs, one seed, no tuning")
    options = parser.parse_args()
    if options.quick:
        options.epochs, options.seeds = 2, 1
    for name in options.tasks:
        compare(name, {"digits": digits, "flowers": flowers}[name](), options)


if __name__ == "__main__":
    main()
