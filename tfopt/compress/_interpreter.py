"""A .tflite file in its interpreter: loading, quantizing inputs, running any number of samples."""

import logging
import pathlib
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any, final

import numpy as np

from tfopt._optional import require
from tfopt._tflite_internals import operations as operations_of
from tfopt.compress._flatbuffer import RETURNS, metadata
from tfopt.compress._matching import Port
from tfopt.compress._probe import CHILD

# Operations whose states live in the interpreter from one run to the next.
_STATEFUL = {"UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM", "LSTM", "SVDF", "RNN"}
_STATEFUL |= {"UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN", "VAR_HANDLE", "CALL_ONCE"}
_logger = logging.getLogger(__name__)


@final
class FileInterpreter:
    """A loaded file, run with numbers as the Keras model takes and gives them.

    Args:
        path: The file.
        content: Its bytes.
        threads: Threads of the interpreter.

    Raises:
        ValueError: If it is no TFLite file, or one at which the interpreter fails or ends its process.
    """

    def __init__(self, path: pathlib.Path, content: bytes, threads: int) -> None:
        if content[4:8] != b"TFL3":
            raise ValueError(
                f"`path` must be a TFLite file. Received: path={str(path)!r}, {len(content)} bytes "
                "without the TFL3 mark."
            )
        CHILD.check(path, content)
        self._interpreter = opened(path, threads)
        own = type(self._interpreter).__module__.startswith("ai_edge_litert")
        self.engine = "LiteRT" if own else "TensorFlow Lite"
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        names = _signature_names(self._interpreter)
        self.inputs = [_port(details, names[0]) for details in self._inputs]
        self.outputs = [_port(details, names[1]) for details in self._outputs]
        self.returns_dict = _returns_dict(content, self.outputs)
        operations = {op["op_name"] for op in operations_of(self._interpreter)}
        self._is_stateful = bool(operations & _STATEFUL)
        shapes = [details["shape"] for details in self._inputs]
        self.batch = int(shapes[0][0]) if shapes and len(shapes[0]) else 1

    def run(self, inputs: list[np.ndarray]) -> list[np.ndarray]:
        """One array per output for one array of samples per input."""
        count = len(inputs[0])
        self._fit(inputs)
        values = [_quantized(array, details) for array, details in zip(inputs, self._inputs)]
        collected: list[list[np.ndarray]] = [[] for _ in self._outputs]
        for start in range(0, count, self.batch):
            rows = [value[start : start + self.batch] for value in values]
            if len(rows[0]) < self.batch:  # a file for a fixed batch: filled up, and cut below
                rows = [np.concatenate([row, row[-1:].repeat(self.batch - len(row), 0)]) for row in rows]
            for part, output in zip(collected, self._invoke(rows)):
                part.append(output)
        return [_joined(part, details, count) for part, details in zip(collected, self._outputs)]

    def runner(self, inputs: list[np.ndarray]) -> Callable[[], float]:
        """A function that runs the first sample and returns the seconds it took."""
        self._fit(inputs)
        rows = [_quantized(a, d)[:1].repeat(self.batch, 0) for a, d in zip(inputs, self._inputs)]

        def run() -> float:
            self._set(rows)
            start = perf_counter()
            self._interpreter.invoke()
            return perf_counter() - start

        return run

    def _invoke(self, rows: list[np.ndarray]) -> list[np.ndarray]:
        self._set(rows)
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            raise ValueError(f"The interpreter fails to run the file: {_sentence(error)}") from error
        return [self._interpreter.get_tensor(details["index"]) for details in self._outputs]

    def _set(self, rows: list[np.ndarray]) -> None:
        if self._is_stateful:
            self._interpreter.reset_all_variables()
        for row, details in zip(rows, self._inputs):
            self._interpreter.set_tensor(details["index"], row)

    def _fit(self, inputs: list[np.ndarray]) -> None:
        """Gives an input whose size the file leaves open that of the samples."""
        changed = False
        for array, details in zip(inputs, self._inputs):
            wanted = [self.batch, *array.shape[1:]]
            if list(details["shape"]) != wanted:
                self._interpreter.resize_tensor_input(details["index"], wanted)
                changed = True
        if changed:
            self._interpreter.allocate_tensors()
            self._inputs = self._interpreter.get_input_details()
            self._outputs = self._interpreter.get_output_details()


def opened(path: pathlib.Path, threads: int = 1, built_in: bool = False, keep_tensors: bool = False) -> Any:
    """An interpreter with its default delegate, XNNPACK, or with TFLite's built-in kernels alone.

    With these, `keep_tensors` lets one read all tensors after a run, not only the outputs.
    """
    kind = _interpreter_class()
    resolvers = sys.modules[kind.__module__].OpResolverType
    resolver = resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES if built_in else resolvers.AUTO
    try:
        interpreter = kind(
            str(path),
            num_threads=threads,
            experimental_op_resolver_type=resolver,
            experimental_preserve_all_tensors=keep_tensors,
        )
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        if not built_in and "xnnpack" in str(error).lower():
            interpreter = opened(path, threads, built_in=True)
            _logger.warning("%s: XNNPACK refuses it; without, it is slower: %s", path, error)
            return interpreter
        raise ValueError(_refusal(path, error)) from error
    return interpreter


def _refusal(path: pathlib.Path, error: Exception) -> str:
    text = _sentence(error)
    if "Flex" in text or "Select TensorFlow" in text or "custom op" in text.lower():
        return (
            f"{str(path)!r} holds operations of TensorFlow (Flex) or of its maker, which TFLite's "
            f"interpreter does not have: {text} Convert the model again without `SELECT_TF_OPS`, or "
            "run it in an application that links the Flex delegate (tensorflow-lite-select-tf-ops)."
        )
    return f"`path` must be a complete TFLite file. The interpreter refuses {str(path)!r}: {text}"


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _interpreter_class() -> Any:
    try:
        return require("ai_edge_litert.interpreter", "Running a .tflite file").Interpreter
    except ImportError:
        return require("tensorflow", "Running a .tflite file").lite.Interpreter


def _signature_names(interpreter: Any) -> tuple[dict[int, str], dict[int, str]]:
    """Names by tensor, from the first signature; none if the file has no signature."""
    keys = list(interpreter.get_signature_list())
    if not keys:
        return {}, {}
    runner = interpreter.get_signature_runner("serving_default" if "serving_default" in keys else keys[0])
    details = runner.get_input_details(), runner.get_output_details()
    first, second = ({int(d["index"]): name for name, d in side.items()} for side in details)
    return first, second


def _port(details: dict[str, Any], names: dict[int, str]) -> Port:
    sizes = details.get("shape_signature", details["shape"])
    sizes = sizes if len(sizes) == len(details["shape"]) else details["shape"]
    shape = tuple(None if size < 0 else int(size) for size in sizes[1:])
    kind = np.dtype(details["dtype"])
    is_quantity = kind.kind == "f" or details["quantization"][0] > 0
    return Port(names.get(details["index"], details["name"]), shape, "float32" if is_quantity else kind.name)


def _returns_dict(content: bytes, outputs: list[Port]) -> bool:
    """As the file says; a converter that says nothing names the outputs of a list `output_0`, `output_1`."""
    try:
        told = metadata(content).get(RETURNS)
    except Exception:  # the reader of this part of the file knows no errors of its own
        told = None
    if told is not None:
        return told == b"dict"
    return not all(port.name.startswith(("output_", "Identity", "StatefulPartitioned")) for port in outputs)


def _quantized(inputs: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    kind, (scale, zero_point) = details["dtype"], details["quantization"]
    if scale and np.issubdtype(kind, np.integer):
        limits = np.iinfo(kind)
        inputs = np.clip(np.round(inputs / scale) + zero_point, limits.min, limits.max)
    return inputs.astype(kind)


def _joined(parts: list[np.ndarray], details: dict[str, Any], count: int) -> np.ndarray:
    scale, zero_point = details["quantization"]
    if not parts:
        return np.zeros((0, *details["shape"][1:]), np.float32)
    output = np.concatenate([part if part.ndim else part[None] for part in parts])[:count]
    if scale:
        return (output.astype(np.float32) - zero_point) * np.float32(scale)
    return output.astype(np.float32) if output.dtype.kind == "f" else output
