"""The TFLite converter, and what has to be repaired in its files: activations whose range has no width."""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from tfopt.compress.quantization.quantize import quantize_aware

BATCH = 8
NO_WIDTH = 8e-9  # the converter's scale for activations that are always zero: 2e-6 / 255
_log = logging.getLogger(__name__)


def converted(
    model: keras.Model, quantization: str | None, data: np.ndarray | None, input_type: str
) -> bytes:
    """The content of a .tflite file.

    Args:
        model: In float32, with one input and one output.
        quantization: As in `export`.
        data: Inputs for the ranges of activations, or None if the model has them.
        input_type: As in `export`.
    """
    content = _bytes(model, quantization, data, input_type)
    if quantization == "int8" and data is not None:
        dead = _always_zero(content)
        if dead:
            _log.warning("Always zero in the given data, with ranges of their own now: %s.", dead)
            content = _bytes(_with_ranges(model, data), quantization, None, input_type)
    return content


def _always_zero(content: bytes) -> list[str]:
    """Activations without range: XNNPACK refuses such a file, or ends the process when it runs it."""
    with _quiet():
        tensors = tf.lite.Interpreter(model_content=content).get_tensor_details()  # loads no kernels yet
    return [t["name"] for t in tensors if t["dtype"] == np.int8 and 0.0 < t["quantization"][0] < NO_WIDTH]


def _with_ranges(model: keras.Model, data: np.ndarray) -> keras.Model:
    """The clone that `quantize_aware` makes, whose ranges always have a width, with those of the data."""
    clone = quantize_aware(model)
    for start in range(0, len(data), BATCH):
        clone(data[start : start + BATCH], training=True)
    return clone


def _bytes(model: keras.Model, quantization: str | None, data: np.ndarray | None, input_type: str) -> bytes:
    (tensor,) = model.inputs
    signature = tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name)
    function = tf.function(lambda inputs: model(inputs, training=False), input_signature=[signature])
    # Frozen here, a MobileNet converts five times faster than through the SavedModel of `from_keras_model`.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    sets = tf.lite.OpsSet
    if quantization is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
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
    with _quiet():
        return converter.convert()


def _one_by_one(data: np.ndarray) -> Callable[[], Iterator[list[np.ndarray]]]:
    return lambda: ([sample[None]] for sample in data)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The converter prints and warns about things that are checked afterwards."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
