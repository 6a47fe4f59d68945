"""The main job on photographs: python benchmarks/finetune_flowers.py [--data FOLDER] [--weights FILE].

Cross-validation pools `train/` and `test/` and trains on four fifths to test on the fifth, five times; no
choice is made by a test fold. The usual probe is a dense layer trained by Adam on features of augmented
views, with dropout and label smoothing; stage 1 is the linear probe of the main job. Errors are paired: on
the same photographs, of models from the same run. Before that, one run of the whole command on the folder
as it is, timed against the script that most people write: `ImageDataGenerator` with rotation, shifts and
flip, Adam at 1e-3, all layers, ten epochs. Both times begin with the process, imports included. `--quick`:
one fold, two epochs of the plain script.
"""

import argparse
import collections
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

import tfopt
from tfopt.recipes.classifier import Classifier
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.stages.linear_head import head_layer

FOLDS, SEED, EPOCHS = 5, 0, 10
ACCURACY = "accuracy"  # begins a line of the plain script
PREDICTED = {"probe": "probe.keras", "stage 1": "stages/head.keras"}
PREDICTED |= {"float": "model.keras", "int8 file": "model.tflite"}


def photographs(folder: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Files of each class, of `train/` and `test/` together."""
    classes = collections.defaultdict(list)
    for path in sorted(folder.glob("t*/*/*")):
        classes[path.parent.name].append(path)
    return classes


def link_fold(classes: dict[str, list[pathlib.Path]], fold: int, target: pathlib.Path) -> list[tuple]:
    """Makes train/ and test/ of one fold out of links; returns (path, class) of the test part."""
    tested = []
    for number, (name, paths) in enumerate(sorted(classes.items())):
        order = np.random.default_rng(SEED).permutation(len(paths))
        for place, index in enumerate(order):
            part = "test" if place % FOLDS == fold else "train"
            link = target / part / name / f"{index}{paths[index].suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(paths[index].resolve())
            if part == "test":
                tested.append((link, number))
    return tested


def finetune(data: pathlib.Path, weights: str, output: pathlib.Path) -> tfopt.FinetuneResult:
    """The main job with its defaults, at the smallest MobileNet."""
    quiet = ConsoleProgress(Console(quiet=True))
    return tfopt.finetune(data, weights=weights, alpha=0.25, seed=SEED, output=str(output), progress=quiet)


def usual_probe(data: pathlib.Path, head: pathlib.Path, target: pathlib.Path) -> None:
    """Saves the linear probe that most people train: ten epochs of Adam on features of eight views."""
    model = keras.models.load_model(head)
    layer = head_layer(model)
    extractor = keras.Model(model.input, layer.input)
    train = tfopt.data.load(data, seed=SEED).train
    views = tfopt.data.pipeline(train, 32, image_size=224, augment=tfopt.data.Augment.standard(), epochs=8)
    features, labels = zip(*((extractor.predict_on_batch(images), labels) for images, labels in views))
    inputs = keras.Input((layer.kernel.shape[0],))
    probe = keras.Model(inputs, keras.layers.Dense(layer.units)(keras.layers.Dropout(0.2)(inputs)))
    updates = 10 * sum(map(len, labels)) // 64
    rate = keras.optimizers.schedules.CosineDecay(3e-3, updates)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    probe.compile(keras.optimizers.Adam(rate), loss)
    one_hot = np.eye(layer.units)[np.concatenate(labels)]
    probe.fit(np.concatenate(features), one_hot, batch_size=64, epochs=10, verbose=0)
    layer.set_weights(probe.layers[-1].get_weights())
    model.save(target)


def cross_validate(
    classes: dict[str, list[pathlib.Path]], weights: str, folds: int, console: Console
) -> None:
    """Prints errors of probe, float model and file over the test folds, and how they agree."""
    wrong: dict[str, list[np.ndarray]] = collections.defaultdict(list)
    agreements, engine = [], []
    for fold in range(folds):
        with tempfile.TemporaryDirectory() as temporary:
            folder, output = pathlib.Path(temporary, "data"), pathlib.Path(temporary, "run")
            tested = link_fold(classes, fold, folder)
            result = finetune(folder, weights, output)
            usual_probe(folder, output / PREDICTED["stage 1"], output / PREDICTED["probe"])
            paths, labels = zip(*tested)
            guesses = {
                name: Classifier(output / file).predict_files(paths).argmax(-1)
                for name, file in PREDICTED.items()
            }
            quantized = Classifier(output / "stages/quantization.keras").predict_files(paths).argmax(-1)
            size = result.tflite_path.stat().st_size
        for name, guess in guesses.items():
            wrong[name].append(guess != np.array(labels))
        agreements.append(guesses["float"] == guesses["int8 file"])
        engine.append(quantized == guesses["int8 file"])
        errors = ", ".join(f"{name} {int(parts[-1].sum())}" for name, parts in wrong.items())
        console.print(f"fold {fold + 1}: errors of {len(labels)}: {errors}")
    errors = {name: int(np.concatenate(parts).sum()) for name, parts in wrong.items()}
    total = sum(map(len, agreements))
    table = Table(title=f"{folds}-fold cross-validation, {total} photographs")
    for title in ("what", "measured", "target"):
        table.add_column(title)
    probe, ours, file = errors["probe"], errors["float"], errors["int8 file"]
    table.add_row("errors of the usual linear probe", f"{probe} ({1 - probe / total:.1%} right)", "")
    table.add_row("errors of stage 1", f"{errors['stage 1']} ({1 - errors['stage 1'] / total:.1%} right)", "")
    table.add_row("errors of the float model", f"{ours} ({1 - ours / total:.1%} right)", "")
    table.add_row("fewer errors than the usual probe", f"{1 - ours / probe:.0%}", "15 %")
    table.add_row("fewer errors than stage 1", f"{1 - ours / errors['stage 1']:.0%}", "")
    table.add_row("errors of the int8 file", f"{file}", "")
    table.add_row("paired difference, int8 - float", f"{(file - ours) / total:+.2%}", "0.5 %")
    table.add_row("int8 file agrees with float", f"{np.concatenate(agreements).mean():.1%}", "98 %")
    table.add_row("int8 file agrees with its Keras model", f"{np.concatenate(engine).mean():.1%}", "99 %")
    table.add_row("int8 file", f"{size / 1e3:.0f} kB", "330 kB")
    console.print(table)


def plain_script(folder: pathlib.Path, weights: str, epochs: int) -> None:
    """The script that most people write; prints the test accuracy after each epoch."""
    preprocess = keras.applications.mobilenet.preprocess_input
    make = tf.keras.preprocessing.image.ImageDataGenerator
    varied = make(
        rotation_range=20,
        width_shift_range=0.2,
        height_shift_range=0.2,
        horizontal_flip=True,
        preprocessing_function=preprocess,
    )
    plain = make(preprocessing_function=preprocess)
    train = varied.flow_from_directory(folder / "train", (224, 224), batch_size=32, seed=SEED)
    test = plain.flow_from_directory(folder / "test", (224, 224), batch_size=32, shuffle=False)
    base = keras.applications.MobileNet((224, 224, 3), 0.25, include_top=False, weights=None, pooling="avg")
    base.load_weights(weights)
    model = keras.Sequential([base, keras.layers.Dense(train.num_classes, "softmax")])
    model.compile(keras.optimizers.Adam(1e-3), "categorical_crossentropy", metrics=["accuracy"])
    for _ in range(epochs):
        model.fit(train, verbose=0)
        print(ACCURACY, model.evaluate(test, verbose=0)[1], flush=True)


def time_plain_script(folder: pathlib.Path, weights: str, epochs: int) -> list[tuple[float, float]]:
    """(seconds since its process began, test accuracy) after each epoch of the plain script."""
    command = [sys.executable, __file__, "--data", str(folder), "--weights", weights, "--plain", str(epochs)]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    lines = ((line, time.perf_counter() - started) for line in process.stdout or ())
    reached = [(seconds, float(line.split()[1])) for line, seconds in lines if line.startswith(ACCURACY)]
    if process.wait() != 0:
        raise RuntimeError("the plain script failed; its error is above")
    return reached


def race(folder: pathlib.Path, weights: str, epochs: int, console: Console) -> None:
    """Prints how long the whole command takes, and how long each side takes to what accuracy."""
    with tempfile.TemporaryDirectory() as temporary:
        output = pathlib.Path(temporary, "run")
        command = [sys.executable, "-m", "tfopt", "finetune", "--data", str(folder), "--weights", weights]
        started = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--alpha", "0.25", "--output", str(output)], stdout=subprocess.DEVNULL
        )
        reached = wait_for(output / "stages/head.keras", process) - started
        if process.wait() != 0:
            raise RuntimeError("tfopt finetune failed; run it by hand to see why")
        whole = time.perf_counter() - started
        test = tfopt.data.pipeline(tfopt.data.load(folder).test, 32, image_size=224, shuffle=False)
        models = {name: keras.models.load_model(output / PREDICTED[name]) for name in ("stage 1", "float")}
        accuracy = {name: accuracy_of(model, test) for name, model in models.items()}
    plain = time_plain_script(folder, weights, epochs)
    best_time, best = max(plain, key=lambda point: (point[1], -point[0]))
    table = Table(title="one run on the folder as it is")
    for title in ("what", "seconds", "test accuracy"):
        table.add_column(title)
    table.add_row("tfopt finetune, first stage", f"{reached:.0f}", f"{accuracy['stage 1']:.1%}")
    table.add_row("tfopt finetune, everything (target: 120 s)", f"{whole:.0f}", f"{accuracy['float']:.1%}")
    table.add_row(f"plain script, best of {epochs} epochs", f"{best_time:.0f}", f"{best:.1%}")
    table.add_row("plain script's time to its best / ours to 95 %", f"{best_time / reached:.1f}x", "")
    console.print(table)


def wait_for(path: pathlib.Path, process: subprocess.Popen) -> float:
    """The time at which a file appears."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.05)
    return time.perf_counter()


def accuracy_of(model: keras.Model, test: tf.data.Dataset) -> float:
    """Share of right answers."""
    return float(
        np.mean([np.mean(model.predict_on_batch(x).argmax(-1) == y) for x, y in test.unbatch().batch(120)])
    )


def main() -> int:
    """0; 2 without photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("TFOPT_FLOWERS"), help="default: TFOPT_FLOWERS")
    parser.add_argument("--weights", default=os.environ.get("TFOPT_WEIGHTS", "imagenet"))
    parser.add_argument("--quick", action="store_true", help="one fold, two epochs of the plain script")
    parser.add_argument(
        "--plain", type=int, metavar="EPOCHS", help="only the plain script, as this one runs it"
    )
    parsed = parser.parse_args()
    console = Console(width=100)
    if parsed.data is None:
        console.print("Nothing to measure: pass --data FOLDER or set TFOPT_FLOWERS.")
        return 0
    folder = pathlib.Path(parsed.data)
    if parsed.plain:
        plain_script(folder, parsed.weights, parsed.plain)
        return 0
    race(folder, parsed.weights, 2 if parsed.quick else EPOCHS, console)
    cross_validate(photographs(folder), parsed.weights, 1 if parsed.quick else FOLDS, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
