"""The TFLite converter, and what has to be repaired in its files: activations whose range has no width."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from tfopt.compress._scales import shortened
from tfopt.compress._splats import uneven_vectors
from tfopt.compress.quantization.quantize import quantize_aware

BATCH = 8
NO_WIDTH = 8e-9  # the converter's scale for activations that are always zero: 2e-6 / 255
_log = logging.getLogger(__name__)


def converted(
    model: keras.Model, quantization: str | None, data: np.ndarray | None, input_type: str, sparse: bool
) -> bytes:
    """The content of a .tflite file.

    Args:
        model: In float32, with one input and one output.
        quantization: As in `export`.
        data: Inputs for the ranges of activations, or None if the model has them.
        input_type: As in `export`.
        sparse: As in `export`.

    Raises:
        ValueError: the model has operations that TFLite lacks; they are named.
    """
    try:
        content = _bytes(model, quantization, data, input_type, sparse)
    except ConverterError as error:
        raise ValueError(_lacking(model, str(error))) from None
    if quantization == "int8" and data is not None:
        dead = _always_zero(content)
        if dead:
            _log.warning("Always zero in the given data, with ranges of their own now: %s.", dead)
            content = _bytes(_with_ranges(model, data), quantization, None, input_type, sparse)
    return shortened(content)


def _lacking(model: keras.Model, text: str) -> str:
    """The operations that a page of compiler messages is about."""
    names = sorted(set(re.findall(r"^(?:Custom|Flex) ops: (.+)$", text, re.MULTILINE)))
    reason = f"TFLite has no operations {', '.join(names)}" if names else text.strip().splitlines()[0]
    fix = "Use layers that TFLite has."
    if "TensorList" in text:
        fix = "Make recurrent layers with `unroll=True`, or the input with `batch_shape=(1, ...)`."
    return f"`model` cannot be converted: {reason}. Received: {model.name!r}. {fix}"


def _always_zero(content: bytes) -> list[str]:
    """Activations without range: XNNPACK refuses such a file, or ends the process when it runs it."""
    with _quiet():
        tensors = tf.lite.Interpreter(model_content=content).get_tensor_details()  # loads no kernels yet
    return [t["name"] for t in tensors if t["dtype"] == np.int8 and 0.0 < t["quantization"][0] < NO_WIDTH]


def _with_ranges(model: keras.Model, data: np.ndarray) -> keras.Model:
    """The clone that `quantize_aware` makes, whose ranges always have a width, with those of the data."""
    try:
        clone = quantize_aware(model)
    except ValueError as error:
        raise ValueError(
            "Activations always zero in `representative_data`, such as states at the start, need the ranges "
            f"of `quantize_aware`, which refuses `model`: {error} Or export with quantization='dynamic'."
        ) from None
    for start in range(0, len(data), BATCH):
        clone(data[start : start + BATCH], training=True)
    return clone


def _bytes(
    model: keras.Model, quantization: str | None, data: np.ndarray | None, input_type: str, sparse: bool
) -> bytes:
    (tensor,) = model.inputs
    signature = tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name)
    function = tf.function(lambda inputs: model(inputs, training=False), input_signature=[signature])
    graph = function.get_concrete_function()
    if data is not None:
        _refuse_loops(graph)
    # Frozen here, a MobileNet converts five times faster than through the SavedModel of `from_keras_model`.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph])
    sets = tf.lite.OpsSet
    if quantization is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if sparse:
        converter.optimizations = [*converter.optimizations, tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantization == "int16x8":
        int16 = sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [int16, sets.TFLITE_BUILTINS]
    if quantization == "int8":
        converter.inference_input_type = tf.as_dtype(input_type)
    if data is not None:
        converter.representative_dataset = _one_by_one(data)
        if quantization == "int8":
            converter.target_spec.supported_ops = [sets.TFLITE_BUILTINS_INT8, sets.TFLITE_BUILTINS]
    with _quiet(), uneven_vectors(model):
        return converter.convert()


def _refuse_loops(function: Any) -> None:
    """Calibrating the operation into which the converter turns a loop over time ends the process."""
    loops = [op.name for op in function.graph.get_operations() if op.type in ("While", "StatelessWhile")]
    if loops:
        raise ValueError(
            "int8 ranges cannot be measured in loops over time. Export with quantization='dynamic'. "
            f"Received: loops {loops}."
        )


def _one_by_one(data: np.ndarray) -> Callable[[], Iterator[list[np.ndarray]]]:
    return lambda: ([sample[None]] for sample in data)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The converter prints and warns about things that are checked afterwards."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
