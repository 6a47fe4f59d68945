"""The main job on other people's images: python benchmarks/finetune_foreign.py FOLDER [--weights FILE].

FOLDER holds one data set per folder, each with `train/` and `test/` of class folders. For each: one run of
`tfopt.finetune` with MobileNet 0.25 at 128 pixels and otherwise its defaults, against scikit-learn's logistic
regression on the features of the same pretrained network, fitted to all of `train/`. No choice is made by
`test/`. Errors are counted on the same test images.

Targets: the float model and the int8 file of each set make no more errors than logistic regression; over all
sets together the int8 files lose at most 0.5 points against the float models. `--only NAME` runs one set.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import tfopt
from tfopt.recipes.classifier import Classifier
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.stages.linear_head import head_layer

IMAGE_SIZE, ALPHA, SEED = 128, 0.25, 0
FILES = {"head": "stages/head.keras", "float": "model.keras", "int8 file": "model.tflite"}
COLUMNS = ("logistic regression", *FILES)


def batches(source: pathlib.Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All images of `train/` or `test/`, whatever `load` makes of `train/`, and their labels."""
    images = tfopt.data.load(source, seed=SEED)
    splits = [images.test] if split == "test" else [images.train, images.validation]
    pairs = [
        (x.numpy(), y.numpy())
        for part in splits
        for x, y in tfopt.data.pipeline(part, 32, image_size=IMAGE_SIZE, shuffle=False)
    ]
    inputs, labels = (np.concatenate(arrays) for arrays in zip(*pairs))
    return inputs, labels


def regression_errors(source: pathlib.Path, weights: str) -> int:
    """Errors of logistic regression on the features of the pretrained network."""
    model = tfopt.models.mobilenet("mobilenet", 2, image_size=IMAGE_SIZE, alpha=ALPHA, weights=weights)
    extractor = keras.Model(model.input, head_layer(model).input)
    (train, train_labels), (test, test_labels) = (batches(source, split) for split in ("train", "test"))
    train, test = (extractor.predict(images, verbose=0) for images in (train, test))
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(train, train_labels)
    return int(np.sum(fitted.predict(test) != test_labels))


def measure(source: pathlib.Path, weights: str, output: pathlib.Path) -> dict[str, float]:
    """Errors of each step of one run, the number of test images and the seconds of the run."""
    started = time.perf_counter()
    tfopt.finetune(
        source,
        weights=weights,
        alpha=ALPHA,
        image_size=IMAGE_SIZE,
        seed=SEED,
        output=str(output),
        progress=ConsoleProgress(Console(quiet=True)),
    )
    found = {"seconds": time.perf_counter() - started}
    images, labels = batches(source, "test")
    for name, file in FILES.items():
        guesses = Classifier(output / file).predict(images).argmax(-1)
        found[name] = int(np.sum(guesses != labels))
    return {**found, "images": len(labels), COLUMNS[0]: regression_errors(source, weights)}


def show(found: dict[str, dict[str, float]], console: Console) -> None:
    """The table of all sets, and what they say together."""
    table = Table(title=f"errors on test images, MobileNet {ALPHA} at {IMAGE_SIZE} pixels")
    for title in ("data set", "images", *COLUMNS, "seconds"):
        table.add_column(title, justify="right")
    for name, row in found.items():
        marked = [
            f"{row[key]:.0f}" + " !" * (row[key] > row[COLUMNS[0]] and key in ("float", "int8 file"))
            for key in COLUMNS
        ]
        table.add_row(name, str(row["images"]), *marked, f"{row['seconds']:.0f}")
    total = {key: sum(row[key] for row in found.values()) for key in ("images", *COLUMNS, "seconds")}
    table.add_row("together", *(f"{value:.0f}" for value in total.values()))
    console.print(table)
    lost = (total["int8 file"] - total["float"]) / total["images"]
    console.print(f"int8 files against float models, together: {lost:+.2%} errors (target: at most +0.50%)")


def main() -> int:
    """0; 2 if there is nothing to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--weights", default=os.environ.get("TFOPT_WEIGHTS", "imagenet"))
    parser.add_argument("--only", action="append", help="name of a set; may be given several times")
    parser.add_argument("--output", type=pathlib.Path, help="keep the runs here, and go on with them")
    parsed = parser.parse_args()
    console = Console(width=110)
    sets = [path for path in sorted(parsed.folder.iterdir()) if (path / "train").is_dir()]
    sets = [path for path in sets if not parsed.only or path.name in parsed.only]
    if not sets:
        console.print(
            f"Nothing to measure: {str(parsed.folder)!r} has no folder with train/ and test/ in it."
        )
        return 2
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        for path in sets:
            found[path.name] = measure(
                path, parsed.weights, (parsed.output or pathlib.Path(temporary)) / path.name
            )
            console.print(path.name, json.dumps(found[path.name]))
    show(found, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
