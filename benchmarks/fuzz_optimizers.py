"""Random models, optimizers, wrappers and callbacks: python benchmarks/fuzz_optimizers.py --cases 60

Each case is drawn from its seed, which `--first SEED --cases 1` repeats, and makes one of three comparisons:

    modes    eager, graph and XLA end with the same weights, up to 1e-5 (in float64)
    file     a model that was saved as `.keras` and loaded trains on like the one that was saved, bit for bit
    resume   a `fit` that ends at a random batch and starts again is like one that does not, bit for bit

What tfopt or Keras refuses in a sentence counts as refused; any other error is a failure, with one line.
"""

import argparse
import collections
import logging
import os
import pathlib
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import tfopt
from tfopt import callbacks as tc
from tfopt import optimizers as to

kc, layers = keras.callbacks, keras.layers
EPOCHS, ROWS, BATCH = 3, 24, 4
TOLERANCE = 1e-5
RATES = {"SGD": 0.05, "LARS": 0.3, "ScheduleFreeSGD": 0.1, "Prodigy": 1.0, "Lion": 0.003, "Adagrad": 0.05}
OPTIMIZERS = ["SGD", "Adam", "AdamW", "Nadam", "RMSprop", "Adagrad", "Lion", "RAdam", "AdaBelief", "Yogi"]
OPTIMIZERS += ["NovoGrad", "LARS", "LAMB", "LazyAdam", "AdEMAMix", "ADOPT", "Adan", "StableAdamW", "Prodigy"]
OPTIMIZERS += ["ScheduleFreeAdamW", "ScheduleFreeSGD", "SOAP", "Muon", "LaProp", "MARS", "SM3"]
OPTIONS: list[dict[str, Any]] = [{}, {}, {"weight_decay": 0.01}, {"clipnorm": 0.5}, {"global_clipnorm": 0.5}]
OPTIONS += [{"clipvalue": 0.1}, {"use_ema": True}, {"use_ema": True, "ema_overwrite_frequency": 4}]
WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "Lookahead": lambda inner: to.Lookahead(inner, sync_period=2),
    "GradientAccumulation": lambda inner: to.GradientAccumulation(inner, steps=2),
    "Cautious": to.Cautious,
    "GradientCentralization": to.GradientCentralization,
    "AdaptiveGradientClipping": to.AdaptiveGradientClipping,
    "ParameterGroups": lambda inner: to.ParameterGroups(inner, [to.Group("bias", 2.0)]),
    "LossScaleOptimizer": lambda inner: keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0),
}
CALLBACKS: dict[str, Callable[[pathlib.Path], Any]] = {
    "ema": lambda folder: tc.WeightAveraging(decay=0.8),
    "swa": lambda folder: tc.WeightAveraging("swa", keep=False),
    "optimizer's average": lambda folder: tc.WeightAveraging("optimizer"),
    "plateau": lambda folder: tc.PlateauDecay("loss", patience=1),
    "monitor": lambda folder: tc.TrainingMonitor(norms_every=2),
    "NaN": lambda folder: tc.NanPolicy("skip"),
    "rollback": lambda folder: tc.NanPolicy("rollback", every=2),
    "noise": lambda folder: tc.GradientNoiseScale(),
    "ramp": lambda folder: tc.BatchSizeRamp(tfopt.schedules.doubling(BATCH, 2 * BATCH, ROWS)),
    "early": lambda folder: kc.EarlyStopping("loss", patience=1, restore_best_weights=True),
    "reduce": lambda folder: kc.ReduceLROnPlateau("loss", patience=1),
    "csv": lambda folder: kc.CSVLogger(str(folder / "log.csv")),
    "checkpoint": lambda folder: kc.ModelCheckpoint(str(folder / "best.keras"), "loss", save_best_only=True),
}
CLOCKS = ("images_per_second", "data_wait")


class Interruption(Exception):
    """Ends a `fit` as a signal would."""


class Interrupt(kc.Callback):
    """Raises after some batches."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.left = iter(range(batches))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts."""
        if next(self.left, None) is None:
            raise Interruption


class Own(keras.Model):
    """A model that its first step builds."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = layers.Dense(5, "tanh"), layers.Dense(3)

    def call(self, x: Any) -> Any:
        """Two layers."""
        return self.high(self.low(x))


class Two(Own):
    """Two parts, each with an optimizer of its own, and its own step."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self.opts = [make(), to.Adam(0.01)]
        self.mean = keras.metrics.Mean("loss")

    def train_step(self, data: Any) -> dict[str, Any]:
        """One update of each part."""
        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, self(x), from_logits=True))
            scaled = self.opts[0].scale_loss(loss)
        for optimizer, part, target in zip(self.opts, (self.low, self.high), (scaled, loss)):
            optimizer.apply(tape.gradient(target, part.trainable_variables), part.trainable_variables)
        self.mean.update_state(loss)
        return {"loss": self.mean.result()}


class Case:
    """What a seed draws."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.seed = seed
        self.check = str(rng.choice(["modes", "file", "resume"]))
        self.network = str(rng.choice(["dense", "convolution", "embedding", "recurrent", "own", "two"]))
        if self.network in ("own", "two") and self.check == "file":
            self.check = "resume"  # such a model is made by its code, not by a file
        self.floatx = "float64" if self.check == "modes" else str(rng.choice(["float32", "float64"]))
        self.mode = str(rng.choice(["graph", "graph", "XLA", "eager"]))
        self.other_mode = "graph" if self.mode != "graph" else str(rng.choice(["XLA", "eager"]))
        self.optimizer = str(rng.choice(OPTIMIZERS))
        self.options = OPTIONS[rng.integers(len(OPTIONS))]
        self.schedule = bool(rng.random() < 0.3)
        self.wrappers = [str(name) for name in rng.permutation(list(WRAPPERS))[: rng.integers(0, 3)]]
        self.callbacks = [str(name) for name in rng.permutation(list(CALLBACKS))[: rng.integers(0, 4)]]
        averages = "use_ema" in self.options or self.optimizer.startswith("ScheduleFree")
        unfit = set() if averages else {"optimizer's average"}  # most of what would be refused
        if "GradientAccumulation" not in self.wrappers or self.network == "two":
            unfit.add("noise")
        self.callbacks = [name for name in self.callbacks if name not in unfit]
        if averages or self.optimizer == "Prodigy":
            self.wrappers = [name for name in self.wrappers if name not in ("Lookahead", "ParameterGroups")]
        self.wrappers.sort(key=lambda name: name == "LossScaleOptimizer")  # which goes outside
        self.stop = int(rng.integers(0, EPOCHS * ROWS // BATCH - 1))
        self.shuffled = bool(rng.random() < 0.5)

    def __str__(self) -> str:
        chain = "(".join([*reversed(self.wrappers), self.optimizer])
        parts = [self.check, self.floatx, self.mode, self.network, chain, str(self.options or "")]
        return " ".join([*parts, "scheduled" * self.schedule, "+".join(self.callbacks)])

    def make_optimizer(self) -> Any:
        """The optimizer in its wrappers; what is refused raises."""
        rate: Any = RATES.get(self.optimizer, 0.01)
        if self.schedule:
            decay = keras.optimizers.schedules.CosineDecay(rate, EPOCHS * ROWS // BATCH)
            rate = tfopt.schedules.Warmup(decay, 2)
        optimizer = vars(to)[self.optimizer](rate, **self.options)
        for name in self.wrappers:
            optimizer = WRAPPERS[name](optimizer)
        return optimizer

    def make_model(self, mode: str) -> keras.Model:
        """A compiled model with the same weights each time."""
        keras.utils.set_random_seed(self.seed)
        if self.network == "two":
            model: keras.Model = Two(self.make_optimizer)
            model.compile(run_eagerly=mode == "eager", jit_compile=mode == "XLA")
            return model
        model = Own() if self.network == "own" else self._sequential()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        options = {"run_eagerly": mode == "eager", "jit_compile": mode == "XLA"}
        model.compile(self.make_optimizer(), loss, metrics=["accuracy"], **options)
        return model

    def _sequential(self) -> keras.Model:
        image = [layers.Reshape((3, 2, 1)), layers.Conv2D(3, 2), layers.BatchNormalization()]
        inner = {
            "dense": [layers.Dense(5, "tanh"), layers.Dropout(0.2)],
            "convolution": [*image, layers.Flatten()],
            "embedding": [layers.Embedding(9, 3), layers.Flatten()],
            "recurrent": [layers.Reshape((3, 2)), layers.GRU(3)],
        }[self.network]
        inputs = keras.Input((6,), dtype="int32" if self.network == "embedding" else None)
        return keras.Sequential([inputs, *inner, layers.Dense(3)])

    def data(self) -> tf.data.Dataset:
        """Batches of whole numbers for the embedding, else of normal ones."""
        rng = np.random.default_rng(0)
        x = rng.integers(0, 9, (ROWS, 6)) if self.network == "embedding" else rng.normal(size=(ROWS, 6))
        x = x.astype("int32" if self.network == "embedding" else self.floatx)
        examples = tf.data.Dataset.from_tensor_slices((x, rng.integers(0, 3, ROWS)))
        examples = examples.shuffle(ROWS, seed=1) if self.shuffled else examples
        return examples.batch(BATCH, drop_remainder=True)

    def fit(self, model: Any, folder: pathlib.Path, epochs: int, *first: Any, stop: int = 10**6) -> Any:
        """The history without what clocks say."""
        others = [CALLBACKS[name](folder) for name in self.callbacks]
        every = [*first, *others, Interrupt(stop)]
        data = first[0].data if first else self.data()
        history = model.fit(data, epochs=epochs, callbacks=every, verbose=0)
        return {name: values for name, values in history.history.items() if name not in CLOCKS}

    def compare(self, folder: pathlib.Path) -> str:
        """What differs, or nothing."""
        keras.config.set_floatx(self.floatx)
        return {"modes": self._modes, "file": self._file, "resume": self._resume}[self.check](folder)

    def _modes(self, folder: pathlib.Path) -> str:
        models = [self.make_model(mode) for mode in (self.mode, self.other_mode)]
        for model in models:
            self.fit(model, folder, EPOCHS)
        gap = difference(*models)
        return f"{self.mode} and {self.other_mode} differ by {gap:.1e}" if gap > TOLERANCE else ""

    def _file(self, folder: pathlib.Path) -> str:
        model = self.make_model(self.mode)
        self.fit(model, folder, 1)
        model.save(folder / "model.keras")
        loaded = keras.models.load_model(folder / "model.keras")
        for each in (model, loaded):
            keras.utils.set_random_seed(self.seed)
            self.fit(each, folder, 1)
        gap = difference(model, loaded) if "dense" not in self.network else 0.0  # files hold no dropout seeds
        return f"the loaded model differs by {gap:.1e}" if gap else ""

    def _resume(self, folder: pathlib.Path) -> str:
        whole = self.make_model(self.mode)
        expected = self.fit(whole, folder, EPOCHS, tc.Resume(folder / "whole", self.data(), every_seconds=0))
        try:
            first = tc.Resume(folder / "broken", self.data(), every_seconds=0)
            self.fit(self.make_model(self.mode), folder, EPOCHS, first, stop=self.stop)
        except Interruption:
            pass
        again = self.make_model(self.mode)
        history = self.fit(again, folder, EPOCHS, tc.Resume(folder / "broken", self.data(), every_seconds=0))
        gap = difference(whole, again)
        if gap:
            return f"after an end in batch {self.stop} the weights differ by {gap:.1e}"
        if history.keys() != expected.keys():
            return f"the logs are {sorted(history)}, not {sorted(expected)}"
        names = [name for name in expected if not np.array_equal(history[name], expected[name], True)]
        return f"after an end in batch {self.stop} the histories differ in {names}" if names else ""


def difference(one: keras.Model, two: keras.Model) -> float:
    """The largest between the weights; infinite where one holds NaN and the other does not."""
    gaps = [0.0]
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        if not np.array_equal(np.isnan(a), np.isnan(b)):
            return np.inf
        gaps.append(float(np.nanmax(np.abs(a.astype("float64") - b), initial=0.0)))
    return max(gaps)


def is_sentence(error: Exception) -> bool:
    """Whether tfopt or Keras refuses: not an error that TensorFlow or Python stumbled upon."""
    frames = traceback.extract_tb(error.__traceback__)
    own = f"{os.sep}tfopt{os.sep}" in frames[-1].filename or f"{os.sep}keras{os.sep}" in frames[-1].filename
    return own and isinstance(error, ValueError | TypeError | RuntimeError) and len(str(error)) > 40


def outcome(case: Case, verbose: bool) -> tuple[str, str]:
    """ "equal", "refused" or "failed", and the reason."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = case.compare(pathlib.Path(folder))
            return ("failed", found) if found else ("equal", "")
        except Exception as error:  # is what a fuzz run looks for
            text = f"{type(error).__name__}: {str(error)[:300]}"
            if is_sentence(error):
                return "refused", text
            if verbose:
                traceback.print_exc()
            return "failed", text
        finally:
            keras.utils.clear_session()


def main() -> int:
    """Runs the cases; 1 if one failed."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--verbose", action="store_true", help="every case, and the whole error")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    counts: collections.Counter[str] = collections.Counter()
    for seed in range(options.first, options.first + options.cases):
        case = Case(seed)
        kind, reason = outcome(case, options.verbose)
        counts[kind] += 1
        if kind == "failed" or options.verbose:
            print(f"seed {seed}: {kind}: {case}: {reason}", flush=True)
    print(", ".join(f"{counts[kind]} {kind}" for kind in ("equal", "refused", "failed")))
    return int(counts["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
