"""How well optimizers train MobileNet 0.25: python benchmarks/convergence.py [--data digits|FOLDER].

For each optimizer the learning rate is chosen on the validation part with a seed of its own; then three
other seeds train at that rate and are judged on the test part. All have the same epochs and a cosine
decay per epoch (Schedule-Free has none). Prints a table; `--plot FILE` draws the loss curves.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import tfopt
import tfopt.optimizers as to
from tfopt import _batch_norm, _plot

DECAY = 0.05
CONTENDERS: dict[str, tuple[Callable[[], Any], list[float]]] = {
    "AdamW": (lambda: to.AdamW(1.0, DECAY), [1e-3, 3e-3, 1e-2]),
    "SGD momentum": (lambda: to.SGD(1.0, 0.9, nesterov=True, weight_decay=1e-3), [0.03, 0.1, 0.3]),
    "Lion": (lambda: to.Lion(1.0, weight_decay=0.5), [1e-4, 3e-4, 1e-3]),
    "LAMB": (lambda: to.LAMB(1.0), [3e-3, 1e-2, 3e-2]),
    "Adan": (lambda: to.Adan(1.0, weight_decay=DECAY), [1e-3, 3e-3, 1e-2]),
    "Prodigy": (lambda: to.Prodigy(1.0, weight_decay=DECAY), [0.5, 1.0, 2.0]),
    "ScheduleFreeAdamW": (
        lambda: to.ScheduleFreeAdamW(1.0, warmup_steps=50, weight_decay=DECAY),
        [3e-3, 1e-2, 3e-2],
    ),
    "Muon": (lambda: to.Muon(1.0, weight_decay=DECAY), [1e-3, 3e-3, 1e-2]),
    "SOAP": (lambda: to.SOAP(1.0, weight_decay=DECAY), [1e-3, 3e-3, 1e-2]),
    "Cautious(AdamW)": (lambda: to.Cautious(to.AdamW(1.0, DECAY)), [1e-3, 3e-3, 1e-2]),
    "Lookahead(AdamW)": (lambda: to.Lookahead(to.AdamW(1.0, DECAY)), [1e-3, 3e-3, 1e-2]),
}


def arrays(source: str, size: int) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], int]:
    """Images of each part, resized and in memory, and the number of classes."""
    data = tfopt.data.load(source)
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    result = {}
    for name, part in parts.items():
        resized = part.map(lambda image, label: (tf.image.resize(_rgb(image), (size, size)), label))
        images, labels = zip(*resized.as_numpy_iterator())
        result[name] = (np.stack(images).astype("float32"), np.array(labels))
    return result, len(data.class_names)


def _rgb(image: tf.Tensor) -> tf.Tensor:
    return tf.image.grayscale_to_rgb(image) if image.shape[-1] == 1 else image


class Contender:
    """One model and one training function for all rates and seeds of an optimizer."""

    def __init__(self, make: Callable[[], Any], parts: dict, classes: int, options: argparse.Namespace):
        self.parts, self.options = parts, options
        self.optimizer = make()
        self.model = self._fresh(0, classes)
        self.classes = classes
        self.model.compile(self.optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        self.optimizer.build(self.model.trainable_variables)
        self.start = [v.numpy() for v in self.optimizer.variables]
        self.decays = not isinstance(self.optimizer, to.ScheduleFreeAdamW)

    def _fresh(self, seed: int, classes: int) -> keras.Model:
        keras.utils.set_random_seed(seed)
        size, weights = self.options.size, self.options.weights
        return tfopt.models.mobilenet("mobilenet", classes, image_size=size, alpha=0.25, weights=weights)

    def run(self, rate: float, seed: int, judge: str) -> tuple[float, list[float]]:
        """Accuracy on a part, and the training loss after every epoch."""
        self.model.set_weights(self._fresh(seed, self.classes).get_weights())
        for variable, value in zip(self.optimizer.variables, self.start):
            variable.assign(value)
        images, labels = self.parts["train"]
        losses = []
        for epoch in range(self.options.epochs):
            share = 0.5 * (1 + np.cos(np.pi * epoch / self.options.epochs)) if self.decays else 1.0
            self.optimizer.learning_rate = rate * share
            order = np.random.default_rng((seed, epoch)).permutation(len(images) // 64 * 64)
            history = self.model.fit(images[order], labels[order], batch_size=64, shuffle=False, verbose=0)
            losses.append(history.history["loss"][0])
        average = getattr(self.optimizer, "average_values", lambda _: None)(self.model.trainable_variables)
        if average is not None:
            for variable, value in zip(self.model.trainable_variables, average):
                variable.assign(value)
        # In so few steps the moving statistics have not arrived (momentum 0.99).
        _batch_norm.reestimate(self.model, tf.data.Dataset.from_tensor_slices(images).batch(64))
        return self.model.evaluate(*self.parts[judge], batch_size=256, verbose=0)[1], losses


def main() -> None:
    """Prints the table, one line as soon as an optimizer is done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits", help='"digits" or a folder of images')
    parser.add_argument("--weights", default=None, help="pretrained weights; none trains from scratch")
    parser.add_argument("--size", type=int, default=32, help="pixels per side")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--plot", default="")
    options = parser.parse_args()
    parts, classes = arrays(options.data, options.size)
    print(f"{options.data}: {len(parts['train'][1])} training images, {options.epochs} epochs")
    print(f"{'optimizer':20s} {'rate':>7s} {'validation':>10s}   test accuracy, mean and range   s/run")
    curves = {}
    for name, (make, rates) in CONTENDERS.items():
        if options.only not in name:
            continue
        contender, start = Contender(make, parts, classes, options), time.perf_counter()
        tuned = {rate: contender.run(rate, 100, "validation")[0] for rate in rates}
        rate = max(tuned, key=lambda r: np.nan_to_num(tuned[r]))
        runs = [contender.run(rate, seed, "test") for seed in range(options.seeds)]
        scores = [100 * score for score, _ in runs]
        curves[name] = np.mean([losses for _, losses in runs], axis=0).tolist()
        seconds = (time.perf_counter() - start) / (len(rates) + options.seeds)
        print(
            f"{name:20s} {rate:7g} {100 * tuned[rate]:9.1f}% {np.mean(scores):14.2f}% "
            f"[{min(scores):.2f}, {max(scores):.2f}] {seconds:6.1f}",
            flush=True,
        )
    if options.plot:
        epochs = list(range(1, options.epochs + 1))
        _plot.save_lines(options.plot, epochs, curves, x_label="epoch", y_label="training loss")


if __name__ == "__main__":
    main()
