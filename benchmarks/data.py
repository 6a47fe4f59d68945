"""Input pipelines and augmentation against Keras's, interleaved in one process: python benchmarks/data.py.

Every line is a ratio of medians over rounds in which both sides take turns, so that what else the machine
does hits both; with `--processor-time`, images per second of work of the cores, which others disturb little.
A round is one whole pass of a fresh iterator. The photographs come from `--data FOLDER`
(or the folder in TFOPT_FLOWERS), with `train/` of class folders below; without one, from noise written as
JPEG. The exit code is 1 if a target is missed.

Filling the cache is bound by libjpeg on both sides, that of large files altogether: the last line says how
many images/s it decodes where nothing else is to be done. Where files are up to twice as large as the model
wants them, the antialiased resize of tfopt costs more than Keras's plain one; large photographs are decoded
at a fraction of their size.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import simplejpeg
import tensorflow as tf
import tf_keras
from PIL import Image
from ratios import record
from rich.console import Console
from rich.table import Table

from tfopt.data import Augment, load, pipeline
from tfopt.data.cache import cached

SIZE, BATCH = 224, 32
clock = time.perf_counter  # `main` takes that of the processor instead, if asked to
GENERATOR = {"rotation_range": 20, "width_shift_range": 0.2, "height_shift_range": 0.2}


@dataclass
class Race:
    """Images/s of the two sides in every round, and the ratio that is wanted."""

    title: str
    target: float
    ours: list[float]
    other: list[float]

    @property
    def ratio(self) -> float:
        """Ours over the other side's."""
        return float(np.median(self.ours) / np.median(self.other))

    def cells(self) -> list[str]:
        """A row of the table."""
        low, high = np.percentile(np.array(self.ours) / np.array(self.other), [25, 75])
        verdict = "met" if self.ratio >= self.target else "MISSED"
        numbers = [f"{np.median(self.ours):,.0f}", f"{np.median(self.other):,.0f}", f"{self.ratio:.1f}x"]
        return [self.title, *numbers, f"{low:.1f} .. {high:.1f}", f"{self.target:g}x", verdict]


def rate(batches: Iterable[Any]) -> float:
    """Images/s of one pass."""
    start = clock()
    count = sum(len(images) for images, *_ in batches)
    return count / (clock() - start)


def race(title: str, target: float, ours: Callable, other: Callable, rounds: int) -> Race:
    """Lets two makers of batches take turns, after three turns that do not count: memory is fresh in them."""
    for _ in range(3):
        rate(ours()), rate(other())
    result = Race(title, target, [], [])
    for _ in range(rounds):
        result.ours.append(rate(ours()))
        result.other.append(rate(other()))
        print(f"{title}: {result.ours[-1]:,.0f} {result.other[-1]:,.0f} images/s", flush=True)
    return result


def by_layers(layers: list[Any], x: np.ndarray, y: np.ndarray) -> tf.data.Dataset:
    """The usual way to put Keras's preprocessing layers into a pipeline."""

    def change(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        for layer in layers:
            images = layer(images, training=True)
        return images, labels

    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(BATCH)
    return batches.map(change, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def one_pass(flow: Any) -> Iterable[Any]:
    """An epoch of a generator of `ImageDataGenerator`, which never ends by itself."""
    return (next(flow) for _ in range(len(flow)))


def augmentation(rounds: int, images: int) -> list[Race]:
    """Images in memory: what changing them costs."""
    rng, layers = np.random.default_rng(0), keras.layers
    races = []
    for size in (96, SIZE):
        x, y = rng.integers(0, 255, (images, size, size, 3), dtype=np.uint8), np.arange(images) % 2
        train = load((x, y), validation_split=0, test_split=0).train
        ours = pipeline(train, BATCH, augment=Augment(randaugment=9), epochs=3)
        rand_augment = by_layers([layers.RandAugment(value_range=(0, 255))], x[:64], y[:64])
        title = f"RandAugment, {size} px, against Keras's layer"
        races.append(race(title, 10, lambda: ours, lambda: rand_augment, rounds))  # noqa: B023
    usual = pipeline(train, BATCH, augment=Augment.image_data_generator(), epochs=3)
    stack = [layers.RandomRotation(20 / 360), layers.RandomTranslation(0.2, 0.2)]
    theirs = by_layers([layers.RandomFlip("horizontal"), *stack], x, y)
    title = f"flip, rotation, shifts, {SIZE} px, against Keras's layers"
    races.append(race(title, 1, lambda: usual, lambda: theirs, rounds))
    flow = generator().flow(x[:128], y[:128], batch_size=BATCH)
    title = f"the same, {SIZE} px, against ImageDataGenerator"
    races.append(race(title, 4, lambda: usual, lambda: one_pass(flow), rounds))
    standard = pipeline(train, BATCH, augment=Augment.standard(), epochs=3)
    title = "Augment.standard (crop, flip, rotation, color), the same"
    return [*races, race(title, 4, lambda: standard, lambda: one_pass(flow), rounds)]


def generator() -> Any:
    """The augmentation of the plain script."""
    return tf_keras.preprocessing.image.ImageDataGenerator(**GENERATOR, horizontal_flip=True)


def files(folder: str, kind: str, gain: float, rounds: int, feeding: bool = True) -> list[Race]:
    """Image files: reading them, `gain` times sooner; if `feeding`, giving a training run its epochs, too."""
    directory = os.path.join(folder, "train")
    options: dict[str, Any] = {"image_size": SIZE, "cache": "memory"}

    def train() -> tf.data.Dataset:
        return load(directory, validation_split=0, test_split=0).train

    def filled() -> list[Any]:  # the cache, as one batch that nobody reads
        return [(cached(train(), (SIZE, SIZE), "memory"),)]

    def keras_first() -> tf.data.Dataset:
        read = keras.utils.image_dataset_from_directory
        batches = read(directory, image_size=(SIZE, SIZE), batch_size=BATCH, verbose=False)
        return batches.cache().prefetch(tf.data.AUTOTUNE)

    def first() -> tf.data.Dataset:
        return pipeline(train(), BATCH, **options)

    def augmented() -> tf.data.Dataset:
        return pipeline(train(), BATCH, augment=Augment.image_data_generator(), **options)

    second, feed = first(), augmented()
    flow = generator().flow_from_directory(directory, (SIZE, SIZE), batch_size=BATCH, class_mode="sparse")
    title = f"{kind}: decode, resize, cache, against image_dataset_from_directory"
    races = [race(title, gain, lambda: lazily(filled), lambda: lazily(keras_first), rounds)]
    title = f"{kind}: second epoch from memory against the first"
    races.append(race(title, 10, lambda: second, lambda: lazily(first), rounds))
    if not feeding:
        return races
    title = "a run's epochs, augmented, against the plain script's generator"
    races.append(race(title, 3, lambda: feed, lambda: one_pass(flow), rounds))
    title = "the first epoch of a run, augmented, the same"
    return [*races, race(title, 1, lambda: lazily(augmented), lambda: one_pass(flow), rounds)]


def decoding(folder: str, rounds: int) -> float:
    """Images/s of decoding alone, contents in memory and pixels thrown away: what no pipeline can surpass."""
    contents = [path.read_bytes() for path in pathlib.Path(folder, "train").rglob("*.jpg")]

    def decoded(start: int) -> list[int]:
        return [len(simplejpeg.decode_jpeg(content, "RGB")) for content in contents[start : start + 16]]

    def passes() -> Iterable[Any]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            yield from ((part,) for part in pool.map(decoded, range(0, len(contents), 16)))

    return float(np.median([rate(passes()) for _ in range(rounds + 1)][1:]))


def lazily(make: Callable[[], Iterable[Any]]) -> Iterable[Any]:
    """Counts what `make` does to the time of the pass."""
    yield from make()


def noise_folder(folder: str, images: int, size: tuple[int, int]) -> str:
    """Two classes of JPEG files of so many pixels (width, height)."""
    rng = np.random.default_rng(0)
    for number in range(images):
        path = pathlib.Path(folder) / "train" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8))
        coarse.resize(size).save(path, quality=90)
    return folder


def main() -> int:
    """Prints the table."""
    global clock
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", default=os.environ.get("TFOPT_FLOWERS"), help="folder with train/CLASS/*.jpg"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds of fewer images")
    parser.add_argument("--processor-time", action="store_true", help="seconds of all cores: a busy machine")
    parser.add_argument("--files-only", action="store_true", help="the lines of the given files only")
    options = parser.parse_args()
    if options.processor_time:
        clock = time.process_time
    rounds, images = (2, 256) if options.quick else (options.rounds, 512)
    with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as large:
        races = [] if options.files_only else augmentation(rounds, images)
        given = options.data or noise_folder(small, images, (500, 400))
        races += files(given, "given files", 1.5, rounds, not options.files_only)
        most = decoding(given, rounds)
        if not options.files_only:
            large_ones = noise_folder(large, images // 4, (2000, 1500))
            races += files(large_ones, "2,000 x 1,500 pixels", 1, rounds, feeding=False)
    for found in races:
        record(f"data: {found.title}", found.ratio)
    table = Table("images/s", "tfopt", "other", "ratio", "quartiles", "target", "")
    for found in races:
        table.add_row(*found.cells())
    console = Console()
    console.print(table)
    console.print(f"{os.cpu_count()} CPU cores, batches of {BATCH}, medians of {rounds} rounds")
    console.print(f"given files: {most:,.0f} images/s at most, where they are decoded and nothing else")
    return int(any(found.ratio < found.target for found in races))


if __name__ == "__main__":
    sys.exit(main())
