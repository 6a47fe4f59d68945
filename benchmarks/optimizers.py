"""Time per update against Keras's own, interleaved in one process: python benchmarks/optimizers.py.

Every number is a ratio of medians from the same rounds, so that what else the machine does hits both.
`--jit` measures under XLA, whose absence is Keras's default under strategies. One call makes one update
with all its call overhead, which is the same for both; `--updates 10` makes ten, as
`steps_per_execution=10` does in `fit`, and shows the update itself.
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from ratios import record

import tfopt.optimizers as to

ko = keras.optimizers
EXTRAS = {"global_clipnorm": 1.0, "use_ema": True, "weight_decay": 0.01}

TWINS: dict[str, tuple[Callable, Callable]] = {
    "Adam": (lambda: to.Adam(), lambda: ko.Adam()),
    "AdamW": (lambda: to.AdamW(), lambda: ko.AdamW()),
    "Nadam": (lambda: to.Nadam(), lambda: ko.Nadam()),
    "RMSprop": (lambda: to.RMSprop(), lambda: ko.RMSprop()),
    "RMSprop momentum": (lambda: to.RMSprop(momentum=0.9), lambda: ko.RMSprop(momentum=0.9)),
    "Adagrad": (lambda: to.Adagrad(), lambda: ko.Adagrad()),
    "SGD momentum": (lambda: to.SGD(momentum=0.9), lambda: ko.SGD(momentum=0.9)),
    "Lion": (lambda: to.Lion(), lambda: ko.Lion()),
}
NEW = ["RAdam", "AdaBelief", "Yogi", "NovoGrad", "LARS", "LAMB", "AdEMAMix", "ADOPT", "Adan", "StableAdamW"]
NEW += ["Prodigy", "ScheduleFreeAdamW", "ScheduleFreeSGD", "LaProp", "MARS", "SM3", "Adafactor"]
MATRIX = ["Muon", "SOAP"]  # a step of theirs takes minutes on the 2048 x 2048 kernels of two CPU cores


def variable_sets() -> dict[str, list[tuple[int, ...]]]:
    """Shapes of the trainable variables of each set."""
    v2 = keras.applications.MobileNetV2(weights=None).trainable_variables
    small = keras.applications.MobileNet(alpha=0.25, weights=None).trainable_variables
    return {
        "MobileNetV2 1.0": [tuple(v.shape) for v in v2],
        "MobileNet 0.25": [tuple(v.shape) for v in small],
        "4 x 2048 x 2048": [(2048, 2048)] * 4,
    }


def stepper(make: Callable, shapes: list, jit: bool, updates: int = 1) -> tuple[Callable[[], None], float]:
    """A function that makes some updates, and the seconds its first call took."""
    rng = np.random.default_rng(0)
    weights = [
        keras.Variable(rng.normal(size=s).astype("float32"), name=f"v{i}") for i, s in enumerate(shapes)
    ]
    grads = [tf.constant(rng.normal(size=s).astype("float32") * 1e-3) for s in shapes]
    optimizer = make()
    optimizer.build(weights)
    step = tf.function(repeated(lambda: optimizer.apply(grads, weights), updates), jit_compile=jit)
    start = time.perf_counter()
    step()
    return step, time.perf_counter() - start


def repeated(update: Callable[[], None], count: int) -> Callable[[], None]:
    """The update so many times in one graph."""

    def updates() -> None:
        if count == 1:
            update()
        else:
            tf.while_loop(lambda i: i < count, lambda i: (update(), i + 1)[1:], [tf.constant(0)])

    return updates


def rounds(steps: dict[str, Callable], count: int) -> dict[str, np.ndarray]:
    """Milliseconds of every step in interleaved rounds."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(count):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: np.array(values[2:]) for name, values in times.items()}


def twins(name: str, shapes: list, options: argparse.Namespace) -> None:
    """Keras's time over ours, with the quartiles of the ratio per round and the first calls."""
    for title, (ours, other) in TWINS.items():
        a, first_a = stepper(ours, shapes, options.jit, options.updates)
        b, first_b = stepper(other, shapes, options.jit, options.updates)
        times = rounds({"ours": a, "other": b}, options.rounds)
        mine, theirs = (np.median(times[name]) / options.updates for name in ("ours", "other"))
        low, high = np.percentile(times["other"] / times["ours"], [25, 75])
        record(f"optimizers: {title}, {name}{', XLA' * options.jit}", theirs / mine)
        print(
            f"  {title:20s} {mine:8.2f} ms {theirs:8.2f} ms   {theirs / mine:5.2f}x  [{low:.2f}, {high:.2f}]"
            f"   first call {first_a:.1f} s, {first_b:.1f} s",
            flush=True,
        )


def new_ones(names: list[str], shapes: list, options: argparse.Namespace) -> None:
    """Time of the optimizers that Keras lacks over that of our Adam, and the first call."""
    makers = {name: vars(to)[name] for name in ["Adam", *names]}
    steps = {name: stepper(make, shapes, options.jit, options.updates) for name, make in makers.items()}
    times = rounds({name: step for name, (step, _) in steps.items()}, options.rounds)
    adam = times["Adam"]
    for name, values in times.items():
        low, high = np.percentile(values / adam, [25, 75])
        ratio = np.median(values) / np.median(adam)
        print(
            f"  {name:20s} {np.median(values) / options.updates:8.2f} ms {ratio:14.2f}x Adam"
            f"  [{low:.2f}, {high:.2f}]   first call {steps[name][1]:.1f} s",
            flush=True,
        )


def limits(shapes: list, count: int) -> None:
    """What an update by kernels can reach at most: one of TensorFlow's for each variable, nothing else."""
    rng = np.random.default_rng(0)
    grads = [tf.constant(rng.normal(size=s).astype("float32") * 1e-3) for s in shapes]
    variables = [[tf.Variable(rng.normal(size=s).astype("float32") ** 2) for _ in range(3)] for s in shapes]

    def adam() -> None:
        powers = {"beta1_power": 0.9, "beta2_power": 0.999}
        for (w, m, v), grad in zip(variables, grads):
            own = {"var": w.handle, "m": m.handle, "v": v.handle, "grad": grad}
            tf.raw_ops.ResourceApplyAdam(**own, lr=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-7, **powers)

    def momentum() -> None:
        for (w, m, _), grad in zip(variables, grads):
            own = {"var": w.handle, "accum": m.handle, "grad": grad}
            tf.raw_ops.ResourceApplyKerasMomentum(**own, lr=1e-3, momentum=0.9)

    steps = {function.__name__: tf.function(function, autograph=False) for function in (adam, momentum)}
    steps["keras adam"] = stepper(lambda: ko.Adam(), shapes, False)[0]
    steps["keras momentum"] = stepper(lambda: ko.SGD(momentum=0.9), shapes, False)[0]
    median = {name: float(np.median(values)) for name, values in rounds(steps, count).items()}
    for name, title in (("adam", "Adam"), ("momentum", "SGD momentum")):
        ratio = median[f"keras {name}"] / median[name]
        print(f"  bare kernels of {title}: {median[name]:.2f} ms, {ratio:.2f}x as fast as Keras")


def extras(shapes: list, count: int) -> None:
    """What clipping, EMA and weight decay cost together: ours as a share of Keras's."""
    makers = {
        "ours": lambda: to.Adam(),
        "ours with": lambda: to.Adam(**EXTRAS),
        "keras": lambda: ko.Adam(),
        "keras with": lambda: ko.Adam(**EXTRAS),
    }
    times = rounds({name: stepper(make, shapes, False)[0] for name, make in makers.items()}, count)
    median = {name: float(np.median(values)) for name, values in times.items()}
    ours, theirs = median["ours with"] - median["ours"], median["keras with"] - median["keras"]
    print(f"  clip + EMA + decay cost {ours:.2f} ms, Keras {theirs:.2f} ms: {ours / theirs:.2f} of it")


def embedding(count: int) -> None:
    """256 rows of a 100,000 x 64 embedding."""
    rows = tf.constant(np.random.default_rng(0).integers(0, 100_000, 256))
    slices = tf.IndexedSlices(tf.random.normal((256, 64)), rows, tf.constant([100_000, 64], tf.int64))
    makers = {
        "LazyAdam": to.LazyAdam,
        "Adagrad": to.Adagrad,
        "SGD": to.SGD,
        "keras Adam": ko.Adam,
        "keras Adagrad": ko.Adagrad,
        "keras SGD": ko.SGD,
    }

    def row_stepper(optimizer: keras.optimizers.Optimizer) -> Callable[[], None]:
        table = keras.Variable(tf.random.normal((100_000, 64)), name="table")
        optimizer.build([table])
        return tf.function(lambda: optimizer.apply([slices], [table]))

    steps = {name: row_stepper(make()) for name, make in makers.items()}
    median = {name: float(np.median(values)) for name, values in rounds(steps, count).items()}
    print("embedding 100,000 x 64, 256 rows")
    for ours, other in (("LazyAdam", "keras Adam"), ("Adagrad", "keras Adagrad"), ("SGD", "keras SGD")):
        a, b = median[ours], median[other]
        print(f"  {ours:28s} {a:8.2f} ms {b:8.2f} ms   {b / a:5.1f}x")


def main() -> None:
    """Prints all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jit", action="store_true", help="under XLA")
    parser.add_argument("--set", default="", help="only sets whose name contains this")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--updates", type=int, default=1, help="updates per call")
    parser.add_argument("--quick", action="store_true", help="the smallest set, few rounds")
    options = parser.parse_args()
    if options.quick:
        options.set, options.rounds = "MobileNet 0.25", 6
    for name, shapes in variable_sets().items():
        if options.set not in name:
            continue
        print(f"{name}: {len(shapes)} variables, {'jit' if options.jit else 'no jit'}; ours, Keras's, ratio")
        twins(name, shapes, options)
        new_ones(NEW + MATRIX * ("2048" not in name and not options.jit), shapes, options)
        if not options.jit:
            limits(shapes, options.rounds)
            extras(shapes, options.rounds)
    if not (options.jit or options.set):
        embedding(options.rounds)


if __name__ == "__main__":
    main()
