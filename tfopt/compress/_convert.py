"""The TFLite converter: one traced function in, the content of a .tflite file out."""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import tensorflow as tf

from tfopt import _tflite_internals
from tfopt.compress._calibration import narrowed, observed, ranged
from tfopt.compress._device_forms import UNROLLED_STEPS, device_forms, is_fusible, recurrent_layers
from tfopt.compress._file_biases import corrected, inputs_of_kernels
from tfopt.compress._flatbuffer import always_zero, finished, shortened
from tfopt.compress._ports import Portable
from tfopt.compress._splats import uneven_vectors
from tfopt.compress.quantization.layers import calibrating
from tfopt.compress.quantization.quantize import quantize_aware

BATCH = 8
RUNS_FOR_MEANS = 16  # of a float file, to know the means of what its kernels read
_logger = logging.getLogger(__name__)


@final
@dataclass(frozen=True)
class Form:
    """What a file shall be; the fields are the arguments of `export`."""

    quantization: str | None = None
    input_type: str = "uint8"
    output_type: str = "float32"
    batch_size: int | None = 1
    sparse: bool = False
    calibration: str = "minmax"


def converted(model: Portable, form: Form, shapes: list[tuple], data: list[np.ndarray] | None) -> bytes:
    """The content of a .tflite file.

    Args:
        model: The model.
        form: What the file shall be.
        shapes: The shape of one sample for each input, without open sizes.
        data: Inputs for the ranges of activations, or None if the model has them or needs none.

    Raises:
        ValueError: If the model has operations that TFLite lacks; they are named.
    """
    try:
        content = _content(model, form, shapes, data)
        dead = always_zero(content) if form.quantization == "int8" and data is not None else []
        if dead:
            _logger.warning("Always zero in the given data, so their ranges are widened: %s.", dead)
            content = _content(_with_ranges(model, data or []), form, shapes, None)
    except _tflite_internals.converter_error() as error:
        raise ValueError(_lacking(model, form, str(error))) from None
    except ValueError as error:
        if "inference_input_type and inference_output_type must be" not in str(error):
            raise
        raise ValueError(
            f"`model` has nothing that TFLite computes in integers. Received: {model.model.name!r}, "
            "quantization='int8'. Export with quantization='dynamic', 'float16' or None."
        ) from None
    except RuntimeError as error:  # the quantizer of 16-bit activations raises no error of its own kind
        raise ValueError(_unquantized(model, form, str(error))) from error
    return finished(shortened(content), model.inputs, model.outputs, model.returns_dict)


def _content(model: Portable, form: Form, shapes: list[tuple], data: list[np.ndarray] | None) -> bytes:
    """Converts with LSTM operations where they work, else with loops, unrolled if ranges are measured."""
    layers = recurrent_layers(model.model)
    if not layers:
        return _bytes(model, form, shapes, data)
    if form.batch_size is None:
        raise ValueError(
            "`batch_size` must be an integer for recurrent layers: TFLite's operations hold their states. "
            f"Received: batch_size=None, layers {[layer.name for layer in layers]}. Use `batch_size=1`."
        )
    integers = form.quantization in ("int8", "int16x8")
    # The LSTM operation has no 16-bit states in the interpreters; the unrolled loop has.
    fuse = form.quantization != "int16x8"
    loops = [layer.name for layer in layers if not (fuse and is_fusible(layer))]
    steps = max(shape[0] for shape in shapes if shape)
    if integers and loops and steps > UNROLLED_STEPS:
        raise ValueError(
            f"int8 ranges cannot be measured in loops over time, and the loops of {loops} are too long to "
            f"unroll: {steps} steps, more than {UNROLLED_STEPS}. Export with "
            "quantization='dynamic' (int8 weights)."
        )
    return _bytes(model, form, shapes, data, fuse=fuse, unroll=integers)


def _bytes(
    model: Portable,
    form: Form,
    shapes: list[tuple],
    data: list[np.ndarray] | None,
    *,
    fuse: bool = True,
    unroll: bool = False,
) -> bytes:
    signature = [
        tf.TensorSpec((form.batch_size, *shape), port.dtype, name=f"input_{i}")
        for i, (shape, port) in enumerate(zip(shapes, model.inputs))
    ]
    forms = {"fuse": fuse, "unroll": unroll, "rescale": form.quantization == "int8"}
    with device_forms(model.model, **forms, integers=data is not None):
        function = tf.function(
            lambda *inputs: model(list(inputs)), input_signature=signature, autograph=False
        )
        graph = function.get_concrete_function()
    converter = _converter(model, function, graph)
    _set(converter, form, data)
    with quiet(), uneven_vectors(model.model):
        if form.quantization == "int8" and data is not None:
            return _in_integers(converter, form, data)
        return converter.convert()


def _in_integers(converter: Any, form: Form, data: list[np.ndarray]) -> bytes:
    """The int8 file of a float model: its ranges, its integers, its biases."""
    original = _tflite_internals.calibrated(converter)
    tensors, runs, chosen = inputs_of_kernels(original), RUNS_FOR_MEANS, original
    if form.calibration == "mse":
        tensors, runs = [*tensors, *ranged(original)], len(data[0])
    found = observed(original, data, tensors, runs)
    if form.calibration == "mse":
        chosen = narrowed(original, found)
    types = converter.inference_input_type, converter.inference_output_type
    content = _tflite_internals.in_integers(chosen, *types)
    means = {index: activation.means for index, activation in found.items()}
    return _tflite_internals.without_copies(corrected(content, original, means))


def _converter(model: Portable, function: Any, graph: Any) -> Any:
    """Frozen here, a MobileNet converts five times faster than through a SavedModel.

    Only the SavedModel keeps the attributes by which the converter recognizes an LSTM.
    """
    holder = tf.Module()
    marked = any("api_implements" in f.attr for f in graph.graph.as_graph_def().library.function)
    if marked:
        holder.function, holder.variables_ = function, [v.value for v in model.model.variables]
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph], holder)
    converter.experimental_lower_to_saved_model = marked
    return converter


def _set(converter: Any, form: Form, data: list[np.ndarray] | None) -> None:
    sets = tf.lite.OpsSet
    if form.quantization is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if form.sparse:
        converter.optimizations = [*converter.optimizations, tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    if form.quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if form.quantization == "int16x8":
        int16 = sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [int16, sets.TFLITE_BUILTINS]
    if form.quantization == "int8":
        converter.inference_input_type = tf.as_dtype(form.input_type)
        converter.inference_output_type = tf.as_dtype(form.output_type)
    if data is not None:
        converter.representative_dataset = _batches(converter, data, form.batch_size or 1)
        if form.quantization == "int8":
            converter.target_spec.supported_ops = [sets.TFLITE_BUILTINS_INT8, sets.TFLITE_BUILTINS]


def _batches(converter: Any, data: list[np.ndarray], size: int) -> Callable[[], Iterator[Any]]:
    """Batches of the file's size; the last one is filled up with samples from the start."""
    count = len(data[0])

    def batches() -> Iterator[Any]:
        for start in range(0, count, size):
            rows: np.ndarray = np.arange(start, start + size) % count
            values = [array[rows] for array in data]
            named = {f"input_{i}": value for i, value in enumerate(values)}
            yield named if converter.experimental_lower_to_saved_model else values

    return batches


def _with_ranges(model: Portable, data: list[np.ndarray]) -> Portable:
    """The clone that `quantize_aware` makes, whose ranges always have a width, with those of the data."""
    try:
        clone = Portable(quantize_aware(model.model))
    except ValueError as error:
        raise ValueError(
            "Activations that are always zero in `representative_data` have no int8 range, and "
            f"`quantize_aware`, which gives them one, refuses `model`: {error} Give "
            "data in which they are not zero, or export with quantization='int16x8' or 'dynamic'."
        ) from None
    with calibrating():
        for start in range(0, len(data[0]), BATCH):
            clone([array[start : start + BATCH] for array in data])
    return clone


def _lacking(model: Portable, form: Form, text: str) -> str:
    """One sentence about the operations that a page of compiler messages is about."""
    found = re.findall(r"^(?:Custom|Flex) ops: (.+)$", text, re.MULTILINE)
    names = sorted({*found, *re.findall(r"'tf\.(\w+)' op is neither a custom op", text)})
    reason = f"TFLite has no operations {', '.join(names)}" if names else text.strip().splitlines()[0][:300]
    fix = "Use layers that TFLite has."
    if form.quantization in ("int8", "int16x8") and not names:
        fix = "Export with quantization='dynamic' or 'float16', or with other layers."
    return f"`model` cannot be converted: {reason}. Received: {model.model.name!r}. {fix}"


def _unquantized(model: Portable, form: Form, text: str) -> str:
    integers = [port.name for port in model.inputs if "int" in port.dtype]
    reason = text.strip().splitlines()[0][:300] if text.strip() else "no reason given"
    if integers and "min/max" in text:
        reason = f"it knows no integer inputs, and {integers} are such"
    if form.quantization is None:
        return f"`model` cannot be converted: {reason} Received: {model.model.name!r}. Use other layers."
    return (
        f"`model` cannot be converted: TFLite's quantizer refuses {form.quantization!r}: {reason}. Received: "
        f"{model.model.name!r}. Export with quantization='int8', 'dynamic' or 'float16'."
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The converter prints and warns about things that are checked afterwards."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
