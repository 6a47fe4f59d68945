"""TFLiteModel: an exported file that can be run, measured and looked into."""

import logging
import pathlib
import sys
import time
import zipfile
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import tensorflow as tf

from tfopt._checks import check_integer, check_number
from tfopt._optional import require
from tfopt.compress._data import batches, classes, labelled
from tfopt.compress.inspection import Inspection, inspect_interpreter

LABELS = "labels.txt"
_log = logging.getLogger(__name__)


@final
@dataclass(frozen=True)
class Latency:
    """Time of one inference in milliseconds: median, 10th and 90th percentile, number of runs."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int

    @classmethod
    def of(cls, seconds: list[float]) -> "Latency":
        """Summary of single measurements."""
        p10, median, p90 = np.percentile(np.asarray(seconds) * 1e3, [10, 50, 90])
        return cls(float(median), float(p10), float(p90), len(seconds))


@final
class TFLiteModel:
    """A .tflite file: predict, evaluate, benchmark, inspect.

    Runs in ai_edge_litert if that is installed, else in TensorFlow's own interpreter. Inputs are what the
    Keras model took (float pixels in [0, 255], say): they are quantized with the scale in the file. A file
    that XNNPACK refuses, as it does where a channel's scale is far from the output's, runs without it.

    Args:
        path: A `.tflite` file, from `export` or anywhere else.
        threads: Threads of the interpreter, >= 1.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a complete TFLite file, or one that the interpreter cannot load.

    Example:
        >>> model = tfopt.compress.TFLiteModel("flowers.tflite")
        >>> model.class_names[model.predict(image[None]).argmax()]
        'tulip'
    """

    def __init__(self, path: str | pathlib.Path, *, threads: int = 1) -> None:
        self.path = pathlib.Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"`path` must be a .tflite file. Received: path={str(path)!r}.")
        self.content = self.path.read_bytes()
        self.threads = check_integer("threads", threads, minimum=1)
        self._interpreter = self._load()
        (self._input,) = self._interpreter.get_input_details()
        (self._output,) = self._interpreter.get_output_details()

    @property
    def class_names(self) -> list[str] | None:
        """The labels stored in the file, in the order of the outputs, or None."""
        if not zipfile.is_zipfile(self.path):
            return None
        with zipfile.ZipFile(self.path) as archive:
            return archive.read(LABELS).decode().splitlines() if LABELS in archive.namelist() else None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch."""
        return tuple(int(size) for size in self._input["shape"][1:])

    def predict(self, inputs: Any) -> np.ndarray:
        """Outputs for a batch, as float32.

        Args:
            inputs: Array `[batch, *input_shape]` of numbers as the Keras model takes them.

        Raises:
            ValueError: another shape, or NaN.
        """
        inputs = np.asarray(inputs)
        if inputs.shape[1:] != self.input_shape:
            raise ValueError(
                f"`inputs` must have the shape (batch, {', '.join(map(str, self.input_shape))}). "
                f"Received: inputs.shape={inputs.shape}."
            )
        if not np.isfinite(inputs).all():
            raise ValueError("`inputs` must be finite numbers. Received NaN or infinity.")
        return np.stack([self._run(x) for x in self._quantized(inputs)]) if len(inputs) else self._empty()

    def evaluate(self, data: Any) -> dict[str, float]:
        """Accuracy on labelled data, and the number of samples.

        Args:
            data: A batched dataset of (inputs, labels) or a pair of arrays.

        Raises:
            ValueError: data without labels, or a file without an output per class.
        """
        inputs, labels = labelled(data)
        predicted = np.concatenate([classes(self.predict(batch)) for batch in inputs])
        return {"accuracy": float(np.mean(predicted == labels)), "samples": len(labels)}

    def benchmark(self, data: Any = None, *, seconds: float = 1.0) -> Latency:
        """Time of one inference with the threads of this model, after a warm-up, without copying the input.

        Args:
            data: Inputs to run; zeros if None (the time does not depend on the values).
            seconds: How long to measure, > 0. At least 10 runs are made.
        """
        check_number("seconds", seconds, minimum=0.0, open_minimum=True)
        inputs = np.zeros((1, *self.input_shape), np.float32) if data is None else next(batches(data))[0]
        run = self.runner(inputs[0])
        times = [run() for _ in range(3)][3:]
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 10:
            times.append(run())
        return Latency.of(times)

    def runner(self, sample: np.ndarray) -> Any:
        """A function that runs one sample and returns the seconds it took, for interleaved measurements.

        As in TensorFlow's benchmark tool, input and output are not copied: in Python this costs a small model
        a tenth of its time.
        """
        value = self._quantized(np.asarray(sample)[None])[0]

        def run() -> float:
            self._interpreter.set_tensor(self._input["index"], value[None])
            start = time.perf_counter()
            self._interpreter.invoke()
            return time.perf_counter() - start

        return run

    def inspect(self) -> Inspection:
        """Operations, data types, scales, zeros and 2:4 patterns, read from the file."""
        return inspect_interpreter(self._load(built_in=True))

    def _load(self, built_in: bool = False) -> Any:
        """An interpreter with its default delegate, XNNPACK, or with TFLite's built-in kernels alone."""
        if self.content[4:8] != b"TFL3":
            raise ValueError(
                f"`path` must be a TFLite file. Received: path={str(self.path)!r}, {len(self.content)} bytes "
                "without the TFL3 mark."
            )
        kind = _interpreter_class()
        resolvers = sys.modules[kind.__module__].OpResolverType
        resolver = resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES if built_in else resolvers.AUTO
        try:
            interpreter = kind(
                str(self.path), num_threads=self.threads, experimental_op_resolver_type=resolver
            )
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            if not built_in and "XNNPACK" in str(error):
                interpreter = self._load(built_in=True)
                _log.warning("%s: XNNPACK refuses it; without, it is slower: %s", self.path, error)
                return interpreter
            raise ValueError(
                f"`path` must be a complete TFLite file. The interpreter refuses {str(self.path)!r}: {error}"
            ) from error
        return interpreter

    def _quantized(self, inputs: np.ndarray) -> np.ndarray:
        kind, (scale, zero_point) = self._input["dtype"], self._input["quantization"]
        if scale and np.issubdtype(kind, np.integer):
            limits = np.iinfo(kind)
            inputs = np.clip(np.round(inputs / scale) + zero_point, limits.min, limits.max)
        return inputs.astype(kind)

    def _run(self, value: np.ndarray) -> np.ndarray:
        self._interpreter.set_tensor(self._input["index"], value[None])
        self._interpreter.invoke()
        output = self._interpreter.get_tensor(self._output["index"])[0]
        scale, zero_point = self._output["quantization"]
        return (output.astype(np.float32) - zero_point) * scale if scale else output.astype(np.float32)

    def _empty(self) -> np.ndarray:
        return np.zeros((0, *self._output["shape"][1:]), np.float32)


def _interpreter_class() -> Any:
    try:
        return require("ai_edge_litert.interpreter", "Running a .tflite file").Interpreter
    except ImportError:
        return tf.lite.Interpreter
