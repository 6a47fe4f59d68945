"""The main job on labels that are no classes: several digits in an image, and the angle of a digit.

Made from scikit-learn's digits: no picture is in two splits.

    python benchmarks/finetune_tasks.py [--epochs 20]

- Several labels: two digits beside each other; the labels are the digits that occur.
- Numbers: a digit turned by -60 to 60 degrees; the target is the angle. A predictor that knows no image
  answers the mean, and is off by 30 degrees.
"""

import argparse
import tempfile
from collections.abc import Callable

import keras
import numpy as np
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits

import tfopt

COUNTS = {"train": (0, 1200, 3000), "validation": (1200, 1450, 500), "test": (1450, 1797, 800)}
CONSOLE = Console(width=110)


def picture(pixels: np.ndarray, size: int) -> Image.Image:
    """One of scikit-learn's digits."""
    return Image.fromarray((pixels * 15.9).astype("uint8")).resize((size, size), Image.Resampling.BILINEAR)


def pair(found: list[int], digits: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> tuple:
    """Two digits beside each other, at random heights, and which ones they are."""
    canvas, several = Image.new("L", (32, 32)), np.zeros(10, int)
    for side, index in enumerate(found):
        canvas.paste(picture(digits[index], 16), (16 * side, int(random.integers(0, 17))))
        several[labels[index]] = 1
    return canvas, several


def turned(found: list[int], digits: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> tuple:
    """A turned digit and its angle in degrees."""
    angle = random.uniform(-60, 60)
    small = picture(digits[found[0]], 24)
    canvas = Image.new("L", (32, 32))
    canvas.paste(small, (4, 4))
    return canvas.rotate(angle, Image.Resampling.BILINEAR), angle


def splits(make: Callable[..., tuple], seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels of three splits, each made of digits of its own."""
    digits, labels = load_digits().images, load_digits().target
    random = np.random.default_rng(seed)
    result = {}
    for name, (first, last, count) in COUNTS.items():
        made = [make(random.integers(first, last, 2).tolist(), digits, labels, random) for _ in range(count)]
        images, targets = zip(*made)
        pixels = np.stack([np.asarray(image.convert("RGB")) for image in images])
        result[name] = pixels, np.array(targets)
    return result


def network() -> keras.Model:
    """Three convolutions without a head, with random weights: `finetune` adds the head of the task."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        x = keras.layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name="three_convolutions")


def main() -> None:
    """Runs both jobs and prints what the exported files reach."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    jobs = {"multilabel": pair, "regression": turned}
    with tempfile.TemporaryDirectory() as folder:
        for task, make in jobs.items():
            names = [str(digit) for digit in range(10)] if task == "multilabel" else ["angle"]
            images = tfopt.data.load(splits(make), task=task, class_names=names)
            result = tfopt.finetune(
                images,
                model=network(),
                weights=None,
                augment=None,  # a turn would change the angle, a flip the digit
                epochs=options.epochs,
                output=f"{folder}/{task}",
            )
            pixels, labels = splits(make)["test"]
            found = tfopt.compress.TFLiteModel(result.tflite_path).predict(pixels)

            measures = result.task.measures(labels.reshape(found.shape), found)
            CONSOLE.print(task, {k: round(v, 3) for k, v in measures.items() if isinstance(v, float)})


if __name__ == "__main__":
    main()
