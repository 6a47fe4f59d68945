"""The process that measures: trains a model at each setting it is told, and reports how long that took.

It runs apart from the user's process so that it may run out of memory, hang or crash. One line of JSON in,
one line out.
"""

import contextlib
import itertools
import json
import os
import pathlib
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfopt._surroundings import visible_cpus
from tfopt.distribute.spawning import _resolve
from tfopt.tune.training_setting import TrainingSetting

_PARTS = 4
MARK = "tfopt-measured "  # in front of an answer, as the model or the data may print too


class _Clock(keras.callbacks.Callback):
    """Seconds of every epoch; `fit` waits for the device at an epoch's end."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._begin = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self._begin)


class _Runner:
    """A model at one setting, which can be measured again and again."""

    def __init__(self, model: keras.Model, dataset: tf.data.Dataset, setting: TrainingSetting) -> None:
        self.setting, self.model, self.dataset = setting, model, dataset
        self.steps = setting.steps_per_execution or self.model.steps_per_execution or 1
        begin = time.perf_counter()
        self._fit(1, 1)
        first = time.perf_counter() - begin
        self.seconds = self._fit(2, 1)[-1]
        self.compile_seconds = max(0.0, first - self.seconds)

    def measure(self, seconds: float, windows: int, at_least: float) -> dict[str, Any]:
        """Examples per second in each of some windows of about so many seconds.

        What is slower than `at_least` examples per second is out of the race: one window will do.
        """
        images = self.steps * self.setting.batch_size
        if images / self.seconds < at_least:
            windows = 1
        calls = max(1, round(seconds / self.seconds))
        # One part more than those of the windows goes in front, in which the input fills its buffers.
        parts = min(_PARTS, calls)
        calls //= parts
        times = self._fit(1 + windows * parts, calls)[1:]
        found = [sum(times[first : first + parts]) for first in range(0, len(times), parts)]
        return {
            "samples_per_second": [parts * calls * images / time_taken for time_taken in found],
            "compile_seconds": self.compile_seconds,
            "effective": {
                "batch_size": self.setting.batch_size,
                "jit_compile": bool(self.model.jit_compile),
                "steps_per_execution": self.steps,
                "precision": self.model.dtype_policy.name,
                "threads": int(os.environ.get("TF_NUM_INTRAOP_THREADS", visible_cpus())),
                "data_threads": self.setting.data_threads,
            },
        }

    def _fit(self, epochs: int, calls: int) -> list[float]:
        clock = _Clock()
        steps = calls * self.steps
        self.model.fit(
            self.dataset, epochs=epochs, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[clock]
        )
        return clock.seconds


def _dataset(data: Any, setting: TrainingSetting) -> tf.data.Dataset:
    """Endless batches: of the user's pipeline, or one batch of his examples over and over."""
    if callable(data):
        dataset = data(setting.batch_size).repeat()
    else:

        def batch(examples: np.ndarray) -> np.ndarray:
            return examples[np.arange(setting.batch_size) % len(examples)]

        dataset = tf.data.Dataset.from_tensors(tf.nest.map_structure(batch, data)).repeat()
    options = tf.data.Options()
    if setting.data_threads is not None:
        options.threading.private_threadpool_size = setting.data_threads
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)


def _called(reference: dict[str, Any]) -> Callable[..., Any]:
    """A function of the user's with the arguments that it was given."""
    function = _resolve(**reference["function"])
    return lambda *more: function(*reference["args"], *more, **reference["kwargs"])


def _source(folder: pathlib.Path) -> tuple[Callable[[TrainingSetting], keras.Model], Any]:
    """How to get the model at a setting, and the data."""
    what = pickle.loads((folder / "subject").read_bytes())
    data = _called(what["data"]) if what["data"] else what["examples"]
    if what["model"] is None:
        keras.config.enable_unsafe_deserialization()  # it is the user's own model
        model = keras.models.model_from_json(what["architecture"])
        return lambda setting: setting.apply(model), data
    make, policy = _called(what["model"]), keras.config.dtype_policy()

    def build(setting: TrainingSetting) -> keras.Model:
        keras.config.set_dtype_policy(setting.precision or policy)
        built = make()
        built.compile(**setting.compile_arguments(built))
        return built

    return build, data


def main(folder: str) -> None:
    """Answers until the questions end; a failure ends the process at once.

    A plain exit would first wait for the threads of a pipeline that may never end, and the failure would
    be taken for a lack of speed.

    Args:
        folder: Where `Subject` wrote its file.
    """
    try:
        _answer(folder)
    except BaseException:  # a `SystemExit` of the user's code as well
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _answer(folder: str) -> None:
    with contextlib.suppress(OSError):  # Linux only: let the system kill this process first
        pathlib.Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")
    model, data = _source(pathlib.Path(folder))
    runner: _Runner | None = None
    for line in itertools.chain([""], sys.stdin):
        reply: dict[str, Any] = {"ready": True}
        if line:
            request = json.loads(line)
            setting = TrainingSetting(**request.pop("setting"))
            if runner is None or runner.setting != setting:
                runner = None  # gives its memory back before the next one takes some
                runner = _Runner(model(setting), _dataset(data, setting), setting)
            reply = runner.measure(**request)
        sys.stdout.write(MARK + json.dumps(reply) + "\n")
        sys.stdout.flush()
