"""TFLiteModel: an exported file that can be run, measured and looked into."""

import logging
import pathlib
import time
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from tfopt._checks import check_integer, check_number
from tfopt.compress._flatbuffer import stored_sparsely
from tfopt.compress._interpreter import FileInterpreter, opened
from tfopt.compress._judging import judged, mean_scores
from tfopt.compress._labels import stored_labels
from tfopt.compress._matching import Port, matched
from tfopt.compress._representative import samples
from tfopt.compress.inspection import Inspection, inspect_interpreter

_logger = logging.getLogger(__name__)


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
    Keras model took (float pixels in [0, 255], say): they are quantized with the scale in the file, and
    outputs are scaled back. A file that XNNPACK refuses, as it does where a channel's scale is far from the
    output's, runs without it. Files with any number of inputs and outputs run, also those of
    others; states of LSTM operations are reset before each sample.

    Args:
        path: A `.tflite` file, from `export` or anywhere else.
        threads: Threads of the interpreter, >= 1.

    Attributes:
        inputs: Name, shape (without batch) and data type of each input.
        outputs: The same of each output.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a complete TFLite file, or one that the interpreter cannot run.

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
        self._file = FileInterpreter(self.path, self.content, self.threads)
        self.inputs, self.outputs = self._file.inputs, self._file.outputs

    @property
    def engine(self) -> str:
        """The interpreter and its threads, such as "LiteRT, 1 thread": times of others cannot be compared."""
        return f"{self._file.engine}, {self.threads} thread{'s' * (self.threads > 1)}"

    @property
    def class_names(self) -> Any:
        """The labels in the file, in the order of the outputs, or None; a dictionary for several outputs."""
        return stored_labels(self.path)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample of the first input, without the batch."""
        return tuple(int(size or 1) for size in self.inputs[0].shape)

    def predict(self, inputs: Any) -> Any:
        """Outputs for a batch of any size, as float32 (integers stay integers where they are no quantities).

        Args:
            inputs: An array `[batch, *input_shape]` of numbers as the Keras model takes them; a list of
                arrays or a dictionary by input name if the file has several inputs.

        Returns:
            An array; for several outputs a list or a dictionary, as the Keras model returns them.

        Raises:
            ValueError: If the shape is another, or there are NaNs.
        """
        outputs = self.run(self._arrays(inputs))
        if len(outputs) == 1:
            return outputs[0]
        if self._file.returns_dict:
            return {port.name: output for port, output in zip(self.outputs, outputs)}
        return outputs

    def run(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """The outputs, in the file's order, for one array of samples per input."""
        return self._file.run(inputs)

    def evaluate(self, data: Any, *, task: Any = None) -> dict[str, float]:
        """What the file reaches on labeled data, and the number of samples.

        Args:
            data: A dataset of (inputs, labels), batched or not, or a pair of arrays (lists or dictionaries
                for several inputs or outputs).
            task: "classification", "binary", "multi_label", "regression" or "dense" (a class per pixel); a
                dictionary for several outputs; None to infer it from labels and outputs.

        Returns:
            "accuracy" and "samples" where there are classes, "mae" and "rmse" for regression. For several
            outputs the names have the output in front: "boxes_mae".

        Raises:
            ValueError: If the data has no labels, or labels and outputs do not fit each other or the task.
        """
        return mean_scores(judged(self.predict_batch, data, self.inputs, self.outputs, task))

    def predict_batch(self, inputs: Any) -> list[np.ndarray]:
        """The outputs as a list, whatever their number."""
        return self.run(self._arrays(inputs))

    def benchmark(self, data: Any = None, *, seconds: float = 1.0) -> Latency:
        """Time of one inference with the threads of this model, after a warm-up, without copying the input.

        Args:
            data: Inputs to run; zeros if None (the time does not depend on the values).
            seconds: How long to measure, > 0. At least 10 runs are made.
        """
        check_number("seconds", seconds, minimum=0.0, open_minimum=True)
        run = self.runner(self._zeros() if data is None else samples(data, self.inputs, 1, "data"))
        times = [run() for _ in range(3)][3:]
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 10:
            times.append(run())
        return Latency.of(times)

    def runner(self, sample: Any) -> Any:
        """A function that runs one sample and returns the seconds it took, for interleaved measurements.

        As in TensorFlow's benchmark tool, input and output are not copied: in Python this costs a small model
        a tenth of its time.

        Args:
            sample: One sample: an array without batch, or a list of arrays of one sample each.
        """
        if isinstance(sample, list):
            return self._file.runner(sample)
        array = np.asarray(sample)
        return self._file.runner([array if array.ndim > len(self.inputs[0].shape) else array[None]])

    def inspect(self) -> Inspection:
        """Operations, data types, scales, zeros and 2:4 patterns, read from the file."""
        interpreter = opened(self.path, self.threads, built_in=True)
        return inspect_interpreter(interpreter, stored_sparsely(self.content))

    def _arrays(self, inputs: Any) -> list[np.ndarray]:
        found = matched(inputs, self._file.inputs)
        if found is None or _batch_is_missing(inputs, self.inputs):
            shapes = ", ".join(f"(batch, {', '.join(map(str, port.shape))})" for port in self.inputs)
            names = "" if len(self.inputs) == 1 else f" for {[port.name for port in self.inputs]}"
            received = inputs if isinstance(inputs, dict | list | tuple) else np.asarray(inputs)
            raise ValueError(
                f"`inputs` must have the shape {shapes}{names}. Received: inputs.shape={_shapes(received)}."
            )
        if not all(np.isfinite(array).all() for array in found):
            raise ValueError("`inputs` must be finite numbers. Received NaN or infinity.")
        return found

    def _zeros(self) -> list[np.ndarray]:
        return [np.zeros((1, *(size or 1 for size in port.shape)), port.dtype) for port in self.inputs]


def _batch_is_missing(inputs: Any, ports: list[Port]) -> bool:
    """A single sample is no batch here: what comes back would have a dimension that nobody gave."""
    return not isinstance(inputs, dict | list | tuple) and np.ndim(inputs) == len(ports[0].shape)


def _shapes(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: np.shape(value) for name, value in values.items()}
    return [np.shape(value) for value in values] if isinstance(values, list | tuple) else values.shape
