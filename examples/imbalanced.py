"""Long-tailed digits: what each remedy for imbalance does to the recall of rare classes.

    python examples/imbalanced.py

The zero keeps all its images, each following digit fewer, the nine 2 %. Every method trains the same small
network on the same images for the same number of updates and is judged on a balanced test set by
macro-recall, the mean of the classes' recalls. With `--noise`, some training labels are wrong as well.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import tfopt

CLASSES, BATCH = 10, 32
Part = tuple[np.ndarray, np.ndarray]


def long_tailed(seed: int, rarest: float, noise: float) -> dict[str, Part]:
    """Digits whose training counts fall geometrically; the test part stays balanced."""
    data = tfopt.data.load("digits", validation_split=0, test_split=0.4, seed=seed)
    train, test = (tuple(map(np.array, zip(*split.as_numpy_iterator()))) for split in (data.train, data.test))
    images, labels = train
    rng = np.random.default_rng(seed)
    kept = []
    for digit in range(CLASSES):
        members = rng.permutation(np.flatnonzero(labels == digit))
        kept.append(members[: max(round(len(members) * rarest ** (digit / (CLASSES - 1))), 2)])
    chosen = np.concatenate(kept)
    images, labels = images[chosen], labels[chosen]
    wrong = rng.random(len(labels)) < noise
    wrong[np.unique(labels, return_index=True)[1]] = False  # one right image of each class stays
    labels[wrong] = rng.integers(0, CLASSES, wrong.sum())
    return {"train": (images, labels), "test": test}


def methods(counts: list[int]) -> dict[str, dict]:
    """What differs between the methods: a loss, class weights or the choice of examples."""
    losses, weights = tfopt.losses, tfopt.data.class_weights
    return {
        "plain": {},
        "label smoothing": {"loss": losses.Focal(0.0, label_smoothing=0.1)},
        "weights, balanced": {"weights": weights(counts)},
        "weights, effective number": {"weights": weights(counts, "effective_number")},
        "oversampling": {"balance": "oversample"},
        "undersampling": {"balance": "undersample"},
        "rejection": {"balance": "rejection"},
        "Focal": {"loss": losses.Focal()},
        "ClassBalanced": {"loss": losses.ClassBalanced(counts)},
        "LogitAdjusted": {"loss": losses.LogitAdjusted(counts)},
    }


def trained(train: tfopt.data.ImageDataset, seed: int, updates: int, how: dict) -> keras.Model:
    """A small network after the given number of updates."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((8, 8, 3)),
        layers.Rescaling(1 / 255),
        layers.Conv2D(32, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(CLASSES, activation="softmax"),
    ])  # fmt: skip
    chosen = train.balanced(how["balance"], seed=seed) if "balance" in how else train
    examples = sum(chosen.class_counts["train"])
    epochs = -(-updates * BATCH // examples)
    batches = tfopt.data.pipeline(chosen.train, BATCH, seed=seed, epochs=epochs).take(updates)
    if "weights" in how:
        batches = tfopt.data.weighted(batches, how["weights"])
    model.compile(tfopt.optimizers.Adam(2e-3), how.get("loss", "sparse_categorical_crossentropy"))
    model.fit(batches, shuffle=False, verbose=0)
    return model


def macro_recall(model: keras.Model, test: Part) -> tuple[float, float]:
    """Of all classes, and of the three rarest."""
    images, labels = test
    answers = model.predict(images.astype("float32"), verbose=0).argmax(-1)
    recalls = [np.mean(answers[labels == digit] == digit) for digit in range(CLASSES)]
    return float(np.mean(recalls)), float(np.mean(recalls[-3:]))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--rarest", type=float, default=0.02, help="share of its images that the 9 keeps")
    parser.add_argument("--noise", type=float, default=0.0, help="share of training labels drawn at random")
    options = parser.parse_args()
    recalls: dict[str, list[tuple[float, float]]] = {}
    for seed in range(options.seeds):
        parts = long_tailed(seed, options.rarest, options.noise)
        data = tfopt.data.load(parts, validation_split=0, test_split=0)
        for name, how in methods(data.class_counts["train"]).items():
            model = trained(data, seed, options.updates, how)
            recalls.setdefault(name, []).append(macro_recall(model, parts["test"]))
    table = Table("method", "macro-recall", "against plain", "the 3 rarest")
    plain = np.array(recalls["plain"])[:, 0]
    for name, values in recalls.items():
        every, rare = np.array(values).T
        gain = f"{np.mean(every - plain):+.1%}"
        table.add_row(name, f"{every.mean():.1%} ± {every.std():.1%}", gain, f"{rare.mean():.1%}")
    Console().print(f"training images of each digit: {data.class_counts['train']}")
    Console().print(table)


if __name__ == "__main__":
    main()
