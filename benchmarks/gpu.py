"""What one GPU or TPU core gives, in about ten minutes: python benchmarks/gpu.py [--quick].

Training of MobileNetV2 in each precision, with and without XLA; updates of the optimizers against Keras's;
training steps with quantization against plain ones. Everything but the table of precisions is a
ratio of interleaved rounds in one process. Without an accelerator it measures the CPU, and says so.
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
from optimizers import TWINS, rounds, stepper
from ratios import record
from rich.console import Console
from rich.table import Table

import tfopt
from tfopt import compress

PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
CONSOLE = Console(width=100)


def device() -> str:
    """What is measured, in words."""
    found = tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU")
    if not found:
        return f"no accelerator: {os.cpu_count()} CPU cores"
    details = tf.config.experimental.get_device_details(found[0])
    return str(details.get("device_name", found[0].name))


def network(size: int, alpha: float) -> keras.Model:
    """MobileNetV2; for `--quick`, which has a width of 0, two layers."""
    if alpha:
        return keras.applications.MobileNetV2((size, size, 3), alpha=alpha, weights=None, classes=1000)
    layers = [keras.layers.Conv2D(8, 3, 2), keras.layers.ReLU(), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input((size, size, 3)), *layers, keras.layers.Dense(1000, "softmax")])


def compiled(size: int, alpha: float, policy: str = "float32", jit: bool = False) -> keras.Model:
    """The network in a precision, with an optimizer."""
    keras.config.set_dtype_policy(policy)
    try:
        model = network(size, alpha)
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(tfopt.optimizers.AdamW(1e-3), "sparse_categorical_crossentropy", jit_compile=jit)
    return model


def batch_of(size: int, images: int) -> tf.data.Dataset:
    """One batch over and over: reading data is another benchmark."""
    rng = np.random.default_rng(0)
    pixels = rng.uniform(-1, 1, (images, size, size, 3)).astype("float32")
    return tf.data.Dataset.from_tensors((pixels, rng.integers(0, 1000, images))).repeat()


def precisions(size: int, alpha: float, images: int, steps: int) -> None:
    """Images per second in each precision, with and without XLA, against float32 without."""
    table = Table(title=f"training MobileNetV2 {alpha}, {size} pixels, batches of {images}")
    for title in ("precision", "XLA", "images/s", "of float32", "first step, s"):
        table.add_column(title, justify="right")
    data, plain = batch_of(size, images), 0.0
    for policy in PRECISIONS:
        for jit in (False, True):
            model = compiled(size, alpha, policy, jit)
            begin = time.perf_counter()
            model.fit(data, steps_per_epoch=1, shuffle=False, verbose=0)
            first = time.perf_counter() - begin
            begin = time.perf_counter()
            model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0)
            rate = steps * images / (time.perf_counter() - begin)
            plain = plain or rate
            record(f"gpu: {policy}{', XLA' * jit} over float32", rate / plain)
            ratio = f"{rate / plain:.2f}"
            table.add_row(policy, "yes" if jit else "no", f"{rate:,.0f}", ratio, f"{first:.1f}")
    CONSOLE.print(table)


def updates(alpha: float, count: int) -> None:
    """Time of Keras's update over ours, ten updates a call, by kernels and under XLA."""
    table = Table(title=f"time of Keras's update over ours, variables of MobileNetV2 {alpha}")
    for title in ("optimizer", "kernels", "XLA"):
        table.add_column(title, justify="right")
    shapes = [tuple(variable.shape) for variable in network(224, alpha).trainable_variables]
    for title, (ours, other) in TWINS.items():
        cells = []
        for jit in (False, True):
            steps = {"ours": stepper(ours, shapes, jit, 10)[0], "other": stepper(other, shapes, jit, 10)[0]}
            times = rounds(steps, count)
            ratio = float(np.median(times["other"]) / np.median(times["ours"]))
            record(f"gpu: {title}{', XLA' * jit} against Keras", ratio)
            cells.append(f"{ratio:.2f}")
        table.add_row(title, *cells)
    CONSOLE.print(table)


def steps_of(model: keras.Model, images: int, size: int) -> Callable[[], None]:
    """A function that makes ten training steps of a compiled model, traced before."""
    x, y = next(iter(batch_of(size, images)))

    def steps() -> None:
        for _ in range(10):
            model.train_on_batch(x, y)

    model.train_on_batch(x, y)
    return steps


def overhead(size: int, alpha: float, images: int, count: int) -> None:
    """A training step with quantization over a plain one."""
    made: dict[str, Any] = {"plain": compiled(size, alpha)}
    made["quantize_aware"] = compress.quantize_aware(network(size, alpha))
    made["quantize_aware"].compile(tfopt.optimizers.AdamW(1e-5), "sparse_categorical_crossentropy")
    times = rounds({name: steps_of(model, images, size) for name, model in made.items()}, count)
    table = Table(title=f"training step of MobileNetV2 {alpha}, {size} pixels, batches of {images}")
    for title in ("training", "ms", "of plain"):
        table.add_column(title, justify="right")
    for name, values in times.items():
        ratio = float(np.median(values) / np.median(times["plain"]))
        record(f"gpu: plain step over one of {name}", 1 / ratio)
        table.add_row(name, f"{np.median(values) / 10:.1f}", f"{ratio:.2f}")
    CONSOLE.print(table)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=128, help="batch size")
    parser.add_argument("--quick", action="store_true", help="two layers, few steps: is all in order?")
    options = parser.parse_args()
    size, alpha, images, steps, count = (
        (16, 0.0, 4, 2, 3) if options.quick else (224, 1.0, options.images, 60, 20)
    )
    CONSOLE.print(f"{device()}; TensorFlow {tf.__version__}, Keras {keras.__version__}")
    precisions(size, alpha, images, steps)
    updates(alpha, count)
    overhead(size, alpha, images, count)


if __name__ == "__main__":
    main()
