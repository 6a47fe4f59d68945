"""What several workers cost and give on this machine: python benchmarks/distribution.py [--quick].

1. Steps per second of one global batch: in one process with all cores, and on two workers with half each.
2. Time of an all-reduce between two workers against its bytes, with the line that fits best.
3. Time from a worker's death to the next training step of the restarted job.
4. Time to read prepared batches and compute on them, on one core; with a data worker on another.

Rounds alternate between what is compared, so that what else the machine does hits both.
"""

import argparse
import os
import pathlib
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

import tfopt

BATCH, IMAGE, CLASSES = 32, 96, 10


class StepTimes(keras.callbacks.Callback):
    """Seconds of every step but the first five."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Notes the time."""
        self.ends.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Of each step."""
        return np.diff(self.ends[5:]).tolist()


def train(steps: int) -> list[float]:
    """Seconds of each step on MobileNet 0.25, on whatever strategy this process finds."""
    strategy = tfopt.distribute.make_strategy()
    with strategy.scope():
        model = tfopt.models.mobilenet("mobilenet", CLASSES, image_size=IMAGE, alpha=0.25)
        model.compile(tfopt.optimizers.Adam(), "sparse_categorical_crossentropy", jit_compile=False)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, IMAGE, IMAGE, 3)).astype("float32")
    data = tf.data.Dataset.from_tensors((pixels, np.arange(BATCH) % CLASSES)).unbatch().batch(BATCH)
    times = StepTimes()
    model.fit(data.cache().repeat(), steps_per_epoch=steps + 6, verbose=0, callbacks=[times])
    return times.seconds()


def reduce_bytes(sizes: list[int], rounds: int) -> dict[int, float]:
    """Median seconds to sum so many bytes over the workers."""
    strategy = tfopt.distribute.make_strategy()

    @tf.function
    def total(value: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: value), axis=None)

    times: dict[int, list[float]] = {size: [] for size in sizes}
    values = {size: tf.ones(size // 4) for size in sizes}
    for _ in range(rounds + 2):
        for size, value in values.items():
            start = time.perf_counter()
            total(value)[0].numpy()
            times[size].append(time.perf_counter() - start)
    return {size: float(np.median(seconds[2:])) for size, seconds in times.items()}


RESTARTED = """
import os, pathlib, sys, time
import keras, numpy as np, tfopt
folder = pathlib.Path(sys.argv[1])
strategy = tfopt.distribute.make_strategy()
worker, attempt = tfopt.distribute.worker_index(strategy), os.environ["TFOPT_ATTEMPT"]
def step(batch, logs):
    if worker == 1 and batch == 10 and attempt == "0":
        (folder / "died").touch()
        os.kill(os.getpid(), 9)
    if attempt == "1":
        (folder / "again").touch()
        os._exit(0)
with strategy.scope():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=False)
resume = tfopt.callbacks.Resume(folder / "checkpoints", every_batches=5)
watch = keras.callbacks.LambdaCallback(on_train_batch_end=step)
model.fit(np.ones((320, 8)), np.ones(320), batch_size=8, verbose=0, callbacks=[resume, watch])
"""


def restart_seconds() -> float:
    """From the death of one of two workers to the next step."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "script.py").write_text(RESTARTED)
        command = [str(folder / "script.py"), name]
        code = tfopt.distribute.launch(command, 2, max_restarts=1, grace_seconds=1.0, output=None)
        if code:
            raise RuntimeError(f"The restarted job ended with exit code {code}.")
        return os.path.getmtime(folder / "again") - os.path.getmtime(folder / "died")


READER = """
import os, sys, time
import tensorflow as tf, tfopt
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
remote, batches = sys.argv[1] == "remote", int(sys.argv[2])
def prepare(number):
    image = tf.random.stateless_uniform((96, 96, 3), [number, 0])
    return tf.image.adjust_hue(tf.image.adjust_saturation(image, 0.8), 0.1)
dataset = tf.data.Dataset.range(10**6).map(prepare).batch(32)
dataset = tfopt.distribute.prepare_remotely(dataset) if remote else dataset
weights = tf.random.normal((96 * 96 * 3, 512))
begin = None
for number, batch in enumerate(dataset.take(batches + 3)):
    if number == 3:
        begin = time.perf_counter()
    for _ in range(3):
        tf.reduce_sum(tf.reshape(batch, (32, -1)) @ weights).numpy()
open(sys.argv[3], "w").write(str(batches / (time.perf_counter() - begin)))
"""


def batches_per_second(remote: bool, batches: int) -> float:
    """With the preparation in the same process, or in a data worker."""
    with tempfile.TemporaryDirectory() as name:
        script, result = pathlib.Path(name) / "script.py", pathlib.Path(name) / "result"
        script.write_text(READER)
        command = [str(script), "remote" if remote else "local", str(batches), str(result)]
        code = tfopt.distribute.launch(command, 1, data_workers=int(remote), grace_seconds=1.0, output=None)
        if code:
            raise RuntimeError(f"The reader ended with exit code {code}.")
        return float(result.read_text())


def rate(times: list[float]) -> str:
    """Steps per second: median and quartiles."""
    low, middle, high = (1 / np.percentile(times, [75, 50, 25])).tolist()
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller sizes")
    quick = parser.parse_args().quick
    rounds, steps = (1, 10) if quick else (3, 40)
    table = Table("what", "measured", title=f"{len(os.sched_getaffinity(0))} CPU cores, {os.uname().machine}")
    alone: list[float] = []
    together: list[float] = []
    for _ in range(rounds):
        alone += tfopt.distribute.spawn(train, 1, args=(steps,))[0]
        together += tfopt.distribute.spawn(train, 2, args=(steps,))[0]
    table.add_row("steps/s, one process", rate(alone))
    table.add_row("steps/s, two workers, the same global batch", rate(together))
    table.add_row("two workers over one process", f"{np.median(alone) / np.median(together):.2f}")
    sizes = [2**k for k in range(10, 23 if quick else 27, 2)]
    seconds = tfopt.distribute.spawn(reduce_bytes, 2, args=(sizes, 5 if quick else 20))[0]
    for size, median in seconds.items():
        table.add_row(f"all-reduce of {size:,} bytes", f"{1e3 * median:.2f} ms")
    slope, latency = np.polyfit(
        sizes, [seconds[size] for size in sizes], 1, w=[1 / seconds[s] for s in sizes]
    )
    table.add_row("which is about", f"{1e3 * latency:.2f} ms + bytes / {1e-9 / slope:.2f} GB/s")
    restarts = [restart_seconds() for _ in range(rounds)]
    table.add_row("restart: from a worker's death to the next step", f"{np.median(restarts):.1f} s")
    pairs = [
        [batches_per_second(remote, 10 if quick else 50) for remote in (False, True)] for _ in range(rounds)
    ]
    local, remote = np.median(pairs, 0)
    table.add_row("batches/s, prepared on the training core", f"{local:.1f}")
    table.add_row("batches/s, prepared by a data worker on another", f"{remote:.1f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
