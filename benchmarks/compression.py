"""What compression costs and saves: python benchmarks/compression.py [--data FOLDER] [--weights FILE].

1. Cross-validation over all photographs of train/ and test/: MobileNet 0.25 fine-tuned, then from each
   fold's float model int8, 80 % pruned and int8, and half of the channels. Errors are paired: the same
   photographs, models from the same run. Times are interleaved runs of the files, one thread.
2. Depthwise channels made uneven by e^+-3.5 without changing the function, as trained networks have them:
   quantization-aware training here and by tfmot (through `to_tf_keras`), with the same data and steps.
3. What the callbacks cost per step at 224 pixels, and to trace, against plain Keras; tfmot against tf_keras.

`--quick`: one fold, one epoch of each training, few steps. `--part cv|uneven|steps` runs one of the three.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time
import zlib
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from ratios import record
from rich.console import Console
from rich.table import Table

import tfopt
from tfopt import compress
from tfopt._tfmot import tfmot
from tfopt.compress.comparison import interleaved
from tfopt.distribute import make_strategy
from tfopt.recipes import FinetuneConfig
from tfopt.recipes.session import Session
from tfopt.recipes.stages import FineTuning, Head, Pruning, Quantization, Slimming, Stage
from tfopt.recipes.starting import starting_model

FOLDS, SEED = 5, 0
CONSOLE = Console(width=110)
STRATEGY = make_strategy("cpu")


def photographs(folder: pathlib.Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """All images, uint8, and integer labels."""
    data = tfopt.data.load(folder).resized(size)
    parts = [part for part in data.splits().values() if part is not None]
    images, labels = zip(*(pair for part in parts for pair in part.as_numpy_iterator()))
    return np.clip(np.rint(np.stack(images)), 0, 255).astype("uint8"), np.array(labels)


def fold_session(data: tuple, fold: int, options: argparse.Namespace) -> Session:
    """A fold's photographs in splits: of the four training fifths, every tenth image validates."""
    images, labels = data
    order = np.random.default_rng(SEED).permutation(len(labels))
    place = np.arange(len(labels)) % FOLDS
    rest = order[place != fold]
    cuts = {"train": np.delete(rest, np.s_[::10]), "validation": rest[::10], "test": order[place == fold]}
    loaded = tfopt.data.load({name: (images[cut], labels[cut]) for name, cut in cuts.items()})
    epochs, compress_epochs = (1, 1) if options.quick else (4, FinetuneConfig.compress_epochs)
    config = FinetuneConfig(
        weights=options.weights,
        alpha=0.25,
        image_size=options.size,
        epochs=epochs,
        compress_epochs=compress_epochs,
        seed=SEED,
    )
    return Session.open(loaded, config, strategy=STRATEGY)


def train_float(session: Session) -> keras.Model:
    """The main job's first two stages."""
    model = starting_model(session)
    Head().train(model, session)
    FineTuning().train(model, session)
    return model


def made(stage: Stage, model: keras.Model, session: Session) -> keras.Model:
    """The model that a stage makes of another."""
    result = stage.start(model, session)
    stage.train(result, session)
    return result


def compressed(data: tuple, fold: int, options: argparse.Namespace, folder: pathlib.Path) -> tuple:
    """Wrong answers of each model of a fold, and the files."""
    some, many = (1, 1) if options.quick else (16, None)
    session = fold_session(data, fold, options)
    model = train_float(session)
    files = {"float": compress.export(model, folder / "float.tflite")}
    quantized = made(Quantization(model), model, session)
    files["int8"] = compress.export(quantized, folder / "int8.tflite", "int8")
    pruned = keras.models.clone_model(model)
    pruned.set_weights(model.get_weights())
    made(Pruning(0.8, model), pruned, session.changed(compress_epochs=some))
    quantized = made(Quantization(pruned, "sparsity"), pruned, session)
    files["80 % pruned, int8"] = compress.export(quantized, folder / "pruned.tflite", "int8")
    small = made(Slimming(0.5, model, many), model, session)
    files["half the channels, float"] = compress.export(small, folder / "small.tflite")
    test = [(x.numpy(), y.numpy().argmax(1)) for x, y in session.plain("test")]
    truth = np.concatenate([labels for _, labels in test])
    wrong = {
        name: np.concatenate([file.predict(images).argmax(1) for images, _ in test]) != truth
        for name, file in files.items()
    }
    return wrong, files, model, test


def cross_validation(data: tuple, options: argparse.Namespace) -> None:
    """Prints errors, sizes and times of the files."""
    errors: dict[str, list[int]] = {}
    faster = []
    total = 0
    for fold in range(1 if options.quick else options.folds):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            wrong, files, _, test = compressed(data, fold, options, pathlib.Path(folder))
            times = interleaved({name: f.runner(test[0][0][0]) for name, f in files.items()}, 1.0)
            sizes = {name: (len(f.content), len(zlib.compress(f.content, 9))) for name, f in files.items()}
        for name, values in wrong.items():
            errors.setdefault(name, []).append(int(values.sum()))
        faster.append(times["float"].median_ms / times["half the channels, float"].median_ms)
        total += len(values)
        line = ", ".join(f"{name} {counts[-1]}" for name, counts in errors.items())
        CONSOLE.print(f"fold {fold + 1}, {len(values)} photographs, errors: {line}", end="; ")
        CONSOLE.print(f"{faster[-1]:.2f}x faster; {time.perf_counter() - started:.0f} s")
    table = Table(title=f"{len(faster)} folds, {total} photographs, {options.size} pixels")
    for title in ("file", "right", "paired difference", "kB", "zipped kB", "ms, last fold"):
        table.add_column(title, justify="right")
    for name, counts in errors.items():
        paired = (sum(errors["float"]) - sum(counts)) / total
        kilobytes = [f"{size / 1e3:.0f}" for size in sizes[name]]
        shown = (
            f"{1 - sum(counts) / total:.1%}",
            f"{paired:+.2%}",
            *kilobytes,
            f"{times[name].median_ms:.2f}",
        )
        table.add_row(name, *shown)
    CONSOLE.print(table)
    CONSOLE.print(
        f"half the channels: {np.median(faster):.2f}x faster ({min(faster):.2f} to {max(faster):.2f})"
    )


def make_uneven(model: keras.Model) -> None:
    """Scales each depthwise channel by e^+-3.5 and lets the batch norm behind it undo that exactly."""
    random = np.random.default_rng(SEED)
    for layer, norm in zip(model.layers, model.layers[1:]):
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            scale = np.exp(random.uniform(-3.5, 3.5, layer.kernel.shape[2]))
            variance = norm.moving_variance.numpy()
            grown = np.sqrt((variance * scale**2 + norm.epsilon) / (variance + norm.epsilon)) / scale
            layer.kernel.assign(layer.kernel.numpy() * scale[:, None])
            norm.moving_mean.assign(norm.moving_mean.numpy() * scale)
            norm.moving_variance.assign(variance * scale**2)
            norm.gamma.assign(norm.gamma.numpy() * grown)


def ours(model: keras.Model, session: Session, folder: pathlib.Path, epochs: int) -> compress.TFLiteModel:
    """Quantization-aware training without augmentation, as tfmot gets it."""
    quantized = compress.quantize_aware(model)
    quantized.compile(keras.optimizers.Adam(1e-5), "categorical_crossentropy")
    quantized.fit(session.plain("train"), epochs=epochs, verbose=0)
    return compress.export(quantized, folder / "ours.tflite", "int8")


def theirs(model: keras.Model, session: Session, folder: pathlib.Path, epochs: int) -> compress.TFLiteModel:
    """The same by tfmot, whose models cannot hold their own rescaling."""
    inputs = keras.Input(model.input_shape[1:])
    x = inputs
    for layer in model.layers[2:]:
        x = layer(x, training=False) if isinstance(layer, keras.layers.BatchNormalization) else layer(x)
    bridged = compress.to_tf_keras(keras.Model(inputs, x))
    quantized = tfmot().quantization.keras.quantize_model(bridged)
    quantized.compile(tf_keras.optimizers.Adam(1e-5), "categorical_crossentropy")
    scaled = session.plain("train").map(lambda images, labels: (images / 127.5 - 1.0, labels))
    quantized.fit(scaled, epochs=epochs, verbose=0)
    converter = tf.lite.TFLiteConverter.from_keras_model(quantized)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    path = folder / "theirs.tflite"
    path.write_bytes(converter.convert())
    return compress.TFLiteModel(path)


def uneven(data: tuple, options: argparse.Namespace) -> None:
    """Prints accuracies as trained, and with uneven channels."""
    session = fold_session(data, 0, options)
    model = train_float(session)
    test = [(x.numpy(), y.numpy().argmax(1)) for x, y in session.plain("test")]
    table = Table(title=f"int8 on {sum(len(y) for _, y in test)} test photographs of one fold")
    for title in ("depthwise channels", "float", "tfopt", "tfmot"):
        table.add_column(title, justify="right")
    for title in ("as trained", "uneven"):
        if title == "uneven":
            make_uneven(model)
        with tempfile.TemporaryDirectory() as folder:
            path, epochs = pathlib.Path(folder), 1 if options.quick else 2
            right = [np.mean([np.mean(model.predict_on_batch(x).argmax(1) == y) for x, y in test])]
            for make, scale in ((ours, lambda x: x), (theirs, lambda x: x / 127.5 - 1.0)):
                file = make(model, session, path, epochs)
                right.append(np.mean([np.mean(file.predict(scale(x)).argmax(1) == y) for x, y in test]))
        table.add_row(title, *(f"{share:.1%}" for share in right))
    CONSOLE.print(table)


class Contestant:
    """A compiled model whose single training steps are timed; the first one traces."""

    def __init__(self, model: Any, callbacks: list, batch: tuple, steps: int) -> None:
        self.model, self.callbacks, self.batch = model, callbacks, batch
        started = time.perf_counter()
        for callback in callbacks:
            callback.set_model(model)
            callback.set_params({"steps": steps, "epochs": 1})
            callback.on_train_begin()
        self.step()
        self.first, self.times = time.perf_counter() - started, []

    def step(self) -> float:
        """Seconds of one step."""
        started = time.perf_counter()
        for callback in self.callbacks:
            callback.on_train_batch_begin(0)
        self.model.train_on_batch(*self.batch)
        return time.perf_counter() - started


def steps(options: argparse.Namespace) -> None:
    """Prints what the callbacks cost."""
    count = 6 if options.quick else 40
    random = np.random.default_rng(SEED)
    batch = random.uniform(-1, 1, (16, 224, 224, 3)).astype("float32"), random.integers(0, 12, 16)
    there = tfmot().sparsity.keras
    schedule = there.PolynomialDecay(0.0, 0.8, 0, count, frequency=max(count // 4, 1))

    def fresh() -> keras.Model:
        return keras.applications.MobileNet(alpha=0.25, weights=None, classes=12)

    def ready(model: Any, optimizer: Any) -> Any:
        model.compile(optimizer, "sparse_categorical_crossentropy")
        return model

    made = {
        "Keras": (ready(fresh(), keras.optimizers.Adam()), []),
        "Keras + Pruning": (ready(fresh(), keras.optimizers.Adam()), [compress.Pruning(schedule)]),
        "Keras + Clustering": (ready(fresh(), keras.optimizers.Adam()), [compress.Clustering(16)]),
        "tf_keras": (ready(compress.to_tf_keras(fresh()), tf_keras.optimizers.Adam()), []),
        "tf_keras + tfmot pruning": (
            ready(
                there.prune_low_magnitude(compress.to_tf_keras(fresh()), schedule), tf_keras.optimizers.Adam()
            ),
            [there.UpdatePruningStep()],
        ),
    }
    contestants = {name: Contestant(*pair, batch, count) for name, pair in made.items()}
    for _ in range(count):
        for contestant in contestants.values():
            contestant.times.append(contestant.step())
    table = Table(title=f"one step of MobileNet 0.25, 224 pixels, batch of 16; {count} interleaved rounds")
    for title in ("training", "ms", "of plain, median (quartiles)", "first step, s", "of plain"):
        table.add_column(title, justify="right")
    for name, contestant in contestants.items():
        plain = contestants["tf_keras" if name.startswith("tf_") else "Keras"]
        ratios = np.array(contestant.times[2:]) / np.array(plain.times[2:])
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        record(f"compression: plain step over one of {name}", 1 / middle)
        ratio = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        first = f"{contestant.first:.1f}", f"{contestant.first / plain.first:.2f}"
        table.add_row(name, f"{1e3 * np.median(contestant.times[2:]):.0f}", ratio, *first)
    CONSOLE.print(table)


def main() -> int:
    """Always 0; says so if there are no photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("TFOPT_FLOWERS"), help="default: TFOPT_FLOWERS")
    parser.add_argument("--weights", default=os.environ.get("TFOPT_WEIGHTS", "imagenet"))
    parser.add_argument("--size", type=int, default=128, help="pixels (default: 128)")
    parser.add_argument("--part", default="", help="cv, uneven or steps")
    parser.add_argument("--folds", type=int, default=FOLDS, choices=range(1, FOLDS + 1), help="of the five")
    parser.add_argument("--quick", action="store_true", help="one fold, one epoch, few steps")
    options = parser.parse_args()
    if options.data is None:
        CONSOLE.print("No photographs: pass --data FOLDER or set TFOPT_FLOWERS. Only the steps are measured.")
    else:
        data = photographs(pathlib.Path(options.data), options.size)
        if options.part in ("", "cv"):
            cross_validation(data, options)
        if options.part in ("", "uneven"):
            uneven(data, options)
    if options.part in ("", "steps"):
        steps(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
