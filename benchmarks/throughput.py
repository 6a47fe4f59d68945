"""Does `tune_throughput` find what an exhaustive grid finds? python benchmarks/throughput.py [--quick].

Both measure the training step of MobileNet 0.25 in the same space. Then what each of them chose, and the
default, run alternately, so that what else the machine does hits all. Targets: at least 85 % of the speed
of the grid's best, in at most a third of the grid's time, and never slower than the default.
"""

import argparse
import contextlib
import itertools
import os
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from rich.console import Console
from rich.table import Table

import tfopt
from tfopt.tune import tune_throughput
from tfopt.tune.measuring import Measurer
from tfopt.tune.subject import Subject
from tfopt.tune.throughput import default_space
from tfopt.tune.training_setting import TrainingSetting

BATCH, LIMIT_SECONDS = 32, 90.0


def compiled(size: int) -> keras.Model:
    """The network that is trained."""
    model = tfopt.models.mobilenet("mobilenet", 12, image_size=size, alpha=0.25)
    model.compile(tfopt.optimizers.AdamW(), "sparse_categorical_crossentropy")
    return model


def grid(model: keras.Model, space: dict, console: Console) -> TrainingSetting:
    """The fastest of all combinations, each measured as `tune_throughput` measures."""
    rates: dict[TrainingSetting, float] = {}
    by_threads = sorted(space, key=lambda name: name != "threads")  # a change of it costs a new process
    with Subject(model, None) as subject, Measurer(subject, limit_seconds=LIMIT_SECONDS) as measurer:
        for values in itertools.product(*(space[name] for name in by_threads)):
            setting = TrainingSetting(batch_size=BATCH, **dict(zip(by_threads, values)))
            found = measurer.measure(setting)
            rates[setting] = found.rate
            console.print(f"{setting}: {found.rate:.0f} images/s {found.status}")
    return max(rates, key=lambda setting: rates[setting])


def alternate(model: keras.Model, settings: dict[str, TrainingSetting], rounds: int) -> dict[str, list]:
    """Images/s of each in rounds; the first builds the models and does not count."""
    rates: dict[str, list[float]] = {name: [] for name in settings}
    with Subject(model, None) as subject, contextlib.ExitStack() as stack:
        measurers = {
            name: stack.enter_context(Measurer(subject, limit_seconds=LIMIT_SECONDS)) for name in settings
        }
        for number in range(rounds + 1):
            for name, setting in settings.items():
                rate = measurers[name].measure(setting, windows=1).rate
                rates[name] += [rate] if number else []
    return rates


def main() -> int:
    """Prints the table; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", type=int, default=96, help="pixels (default: 96)")
    parser.add_argument("--quick", action="store_true", help="two settings, two rounds")
    options = parser.parse_args()
    console, model = Console(width=140), compiled(options.size)
    space = {"jit_compile": [False, True]} if options.quick else default_space()
    started = time.perf_counter()
    best = grid(model, space, console)
    grid_seconds = time.perf_counter() - started
    started = time.perf_counter()
    found = tune_throughput(model, batch_size=BATCH, space=space, limit_seconds=LIMIT_SECONDS, cache_dir=None)
    seconds = time.perf_counter() - started
    settings = {"default": TrainingSetting(batch_size=BATCH), "grid": best, "tfopt": found.setting}
    rates = alternate(model, settings, 2 if options.quick else 5)
    table = Table(
        title=f"{os.cpu_count()} CPU cores, MobileNet 0.25, {options.size} pixels, batch of {BATCH}"
    )
    for title in ("", "images/s, median", "of the grid's best", "search, s", "setting"):
        table.add_column(title)
    took = {"default": 0.0, "grid": grid_seconds, "tfopt": seconds}
    shares = {
        name: statistics.median(a / b for a, b in zip(values, rates["grid"]))
        for name, values in rates.items()
    }
    for name, values in rates.items():
        middle = f"{statistics.median(values):.0f}"
        table.add_row(name, middle, f"{shares[name]:.2f}", f"{took[name]:.0f}", str(settings[name]))
    console.print(table)
    slower = statistics.median(a / b for a, b in zip(rates["tfopt"], rates["default"])) < 0.97
    return int(slower or shares["tfopt"] < 0.85 or seconds > grid_seconds / 3)


if __name__ == "__main__":
    sys.exit(main())
