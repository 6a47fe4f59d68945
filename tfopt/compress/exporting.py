"""export: a Keras model as a .tflite file that has been loaded, run and compared before it is handed over."""

import logging
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfopt._checks import check_choice, check_integer, message
from tfopt._keras_internals import nodes
from tfopt.compress._c_source import write_source
from tfopt.compress._calibration import CALIBRATIONS
from tfopt.compress._check_data import drawn, warn_of_scale
from tfopt.compress._convert import Form, converted
from tfopt.compress._device_forms import device_forms
from tfopt.compress._kernels import refuse_keras_quantized
from tfopt.compress._labels import check_class_names, store_labels
from tfopt.compress._mediapipe import for_tasks
from tfopt.compress._ports import Portable, check_model, with_symbolic_inputs
from tfopt.compress._probe import CHILD
from tfopt.compress._representative import first_inputs, samples
from tfopt.compress._sizes import warn_of_size
from tfopt.compress._targets import check_operations, check_options
from tfopt.compress._verification import expected_of, ranges_of, verify
from tfopt.compress.equalization.unevenness import evened
from tfopt.compress.quantization.bounding import with_bounded_masks
from tfopt.compress.tflite_model import TFLiteModel

QUANTIZATIONS = (None, "dynamic", "float16", "int8", "int16x8")
TYPES = ("uint8", "int8", "float32")
CALIBRATION_SAMPLES = 100
CHECKED_SAMPLES = 16
LARGEST_WEIGHT = {"float16": 65504.0, "dynamic": 1e7, "int8": 1e7, "int16x8": 1e7}
_logger = logging.getLogger(__name__)


def export(
    model: keras.Model,
    path: str | pathlib.Path,
    quantization: str | None = None,
    representative_data: Any = None,
    input_type: str = "uint8",
    class_names: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    *,
    batch_size: int | None = 1,
    output_type: str = "float32",
    sparse: bool = False,
    target: str | None = None,
    calibration: str = "minmax",
) -> TFLiteModel:
    """Writes a .tflite file and returns it opened, after it ran and agreed with the model.

    int8 is the smallest and fastest on phones and microcontrollers: a model from `quantize_aware` needs no
    data for it, any other needs representative inputs; channels of very unequal size are made even first
    (`equalize`), which does not change the function. "dynamic" stores int8 weights and computes in float.
    "float16" halves the file. "int16x8" keeps 16-bit activations for models that int8 hurts.

    The file takes one sample at a time, has one signature with the model's own input and output names, and
    holds no shape arithmetic. It is compared with the model output by output and channel by channel (of the
    last axis); what does not agree is an error for float files and a warning for the others.

    A file with LSTM operations keeps their states from one run to the next: reset them between sequences
    (`interpreter.reset_all_variables()`; `TFLiteModel` does).

    Args:
        model: A Keras 3 model: Functional, Sequential or subclassed, with any number of inputs and outputs.
        path: File to write. It appears only when every check has passed.
        quantization: None (float32), "dynamic", "float16", "int8" or "int16x8".
        representative_data: Inputs as the model will see them, for "int8" and "int16x8" of a float model: a
            dataset or generator of batches or samples, with labels or without; an array; a list or dictionary
            of arrays for several inputs; or the generator function of the TFLite guide. 100 samples are used,
            at least 2 are needed. If the model leaves its input's size open, the file takes that of these
            inputs, with any quantization.
        input_type: What an int8 file takes: "uint8" (pixels as they come), "int8" or "float32". The other
            files take float32. Integer inputs, such as token ids, stay as they are.
        class_names: Labels to store in the file, one per output channel; two for a single sigmoid. For
            several outputs a dictionary: output name to labels. Any zip program shows them, and MediaPipe's
            ImageClassifier reads them of models that take uint8 or float pixels.
        batch_size: Samples per run; None leaves it open, which adds shape arithmetic that small devices lack.
        output_type: What an int8 file returns: "float32", "int8" or "uint8". With "float32" the probabilities
            of 32 or more classes are computed in float from int8 logits: in steps of 1/256 several share the
            top.
        sparse: Store a pruned model without its zeros: 80 % of them save two thirds of the file, at the
            same speed. For None and "float16" only: int8 files made so are refused by the interpreters.
        target: Where the file shall run: "tflm" (microcontrollers), "edgetpu" or "gpu". Its operations are
            compared with those that the target has: what TensorFlow Lite Micro lacks is an error, what the
            others leave to the processor a warning. For "tflm" the file is written as C++ source as well,
            `.cc` and `.h` beside it.
        calibration: How int8 ranges follow from `representative_data`: "minmax", the extremes, or "mse",
            the ends between which rounding has the least mean squared error. They cut off what hardly ever
            occurs, for finer steps in between.

    Raises:
        TypeError: If `model` is no Keras 3 model or the data has a form that is not known.
        ValueError: If options do not go together, TFLite lacks an operation, the data does not fit, the model
            has not seen data yet, weights cannot be stored, or the file does not agree with the model.

    Example:
        >>> tfopt.compress.export(model, "flowers.tflite", "int8", train, class_names=names)
    """
    form = _form(quantization, input_type, output_type, batch_size, sparse, calibration)
    check_options(target, quantization, batch_size)
    model = check_model(model)
    CHILD.start()  # imports the interpreter during the conversion
    if not nodes(model):
        model = with_symbolic_inputs(model, first_inputs(representative_data))
    _check_quantized(model, quantization)
    _check_finite(model)
    portable = Portable(model)
    check_class_names(portable.outputs, class_names)
    needs_ranges = quantization in ("int8", "int16x8") and not ranges_of(model)
    data = _data(portable, representative_data, needs_ranges)
    with device_forms(model, fuse=False):
        checked = [_spread(array) for array in data]
        expected = expected_of(portable, checked, batch_size)
    _check_magnitude(model, quantization)
    source = portable
    if needs_ranges:
        model = with_bounded_masks(model)
        source = portable.like(model)
    if needs_ranges and quantization == "int8":
        source = portable.like(evened(model, keras.tree.pack_sequence_as(portable.input_structure, data)))
    content = converted(source, form, [array.shape[1:] for array in data], data if needs_ranges else None)
    taken = input_type if quantization == "int8" else "float32"
    content = for_tasks(content, portable.inputs, portable.outputs, taken, class_names)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        candidate = pathlib.Path(folder) / path.name
        candidate.write_bytes(content)
        if class_names is not None:
            store_labels(candidate, portable.outputs, class_names)
        contents = verify(TFLiteModel(candidate), portable, checked, expected, quantization)
        check_operations(target, contents, path.name)
        warn_of_size(content, path.name, quantization)
        os.replace(candidate, path)
    file = TFLiteModel(path)
    if target == "tflm":
        write_source(path, file.content, class_names)
    return file


def _form(
    quantization: str | None,
    input_type: str,
    output_type: str,
    batch_size: int | None,
    sparse: bool,
    calibration: str,
) -> Form:
    check_choice("quantization", quantization, QUANTIZATIONS)
    check_choice("input_type", input_type, TYPES)
    check_choice("output_type", output_type, TYPES)
    if output_type != "float32" and quantization != "int8":
        fix = "Only files with quantization='int8' return integers."
        raise ValueError(
            message("output_type", f"'float32' with quantization={quantization!r}", output_type, fix)
        )
    if batch_size is not None:
        check_integer("batch_size", batch_size, minimum=1)
    if sparse and quantization not in (None, "float16"):
        fix = "A zip file compresses the zeros of a dense int8 file as well."
        raise ValueError(message("quantization", "None or 'float16' with sparse=True", quantization, fix))
    check_choice("calibration", calibration, CALIBRATIONS)
    if calibration != "minmax" and quantization != "int8":
        fix = "It chooses the ranges of int8 activations."
        raise ValueError(
            message("calibration", f"'minmax' with quantization={quantization!r}", calibration, fix)
        )
    return Form(quantization, input_type, output_type, batch_size, sparse, calibration)


def _check_quantized(model: keras.Model, quantization: str | None) -> None:
    refuse_keras_quantized(model, "exported")
    ranges = ranges_of(model)
    if ranges and quantization != "int8":
        fix = "Export the model that was given to `quantize_aware` instead."
        raise ValueError(message("quantization", "'int8' for a quantize_aware model", quantization, fix))
    empty = [layer.name for layer in ranges if not layer.calibrated]
    if empty:
        raise ValueError(f"The model has not seen data: fit it before the export. Ranges unset: {empty[:3]}.")


def _check_finite(model: keras.Model) -> None:
    for variable in model.weights:
        if "float" in str(variable.dtype) and not np.isfinite(variable.numpy()).all():
            raise ValueError(
                f"Weights and ranges must be finite. Received NaN or infinity in {variable.path}."
            )


def _check_magnitude(model: keras.Model, quantization: str | None) -> None:
    """Refuses weights that no file can hold; the converter or an interpreter may end the process at them."""
    largest = LARGEST_WEIGHT.get(quantization or "", float("inf"))
    for variable in model.weights:
        if "float" not in str(variable.dtype) or len(variable.shape) < 2:
            continue
        top = float(np.abs(variable.numpy()).max(initial=0.0))
        if top > largest:
            raise ValueError(
                f"Weights must be at most {largest:.5g} for quantization={quantization!r}. Received "
                f"{top:.3g} in {variable.path}. Such weights come from features that hardly vary: scale "
                "the layer's inputs, train with weight decay, or export with quantization=None."
            )


def _data(model: Portable, data: Any, needs_ranges: bool) -> list[np.ndarray]:
    """Inputs for ranges and check."""
    if data is None:
        if needs_ranges:
            fix = "Give a batched dataset of training images, or train the model with `quantize_aware`."
            raise ValueError(
                message("representative_data", "inputs for the ranges of activations", data, fix)
            )
        for port in model.inputs:
            if None in port.shape:
                expected = f"inputs of the size that the file shall take: the model's is {port.shape}"
                raise ValueError(message("representative_data", expected, data))
        return drawn(
            model, [tuple(size or 1 for size in port.shape) for port in model.inputs], CHECKED_SAMPLES
        )
    arrays = samples(data, model.inputs, CALIBRATION_SAMPLES if needs_ranges else CHECKED_SAMPLES)
    least = 2 if needs_ranges else 1
    finite = all(bool(np.isfinite(array).all()) for array in arrays)
    if len(arrays[0]) < least or not finite:
        wanted = ", ".join(str(port.shape) for port in model.inputs)
        raise ValueError(
            f"`representative_data` must be at least {least} finite inputs of shape {wanted}. "
            f"Received: shape {', '.join(str(array.shape) for array in arrays)}, all finite: {finite}."
        )
    warn_of_scale(model, arrays)
    return arrays


def _spread(array: np.ndarray) -> np.ndarray:
    """Samples from all over the data: the first ones of sorted data are all alike."""
    rows = np.linspace(0, len(array) - 1, min(len(array), CHECKED_SAMPLES)).round().astype(int)
    return array[rows]
