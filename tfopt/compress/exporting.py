"""export: a Keras model as a .tflite file that has been loaded, run and compared before it is handed over."""

import logging
import math
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfopt._checks import check_choice, check_instance, message
from tfopt.compress._clone import in_float32
from tfopt.compress._convert import converted
from tfopt.compress._data import samples
from tfopt.compress.quantization.layers import FakeQuantize
from tfopt.compress.tflite_model import LABELS, TFLiteModel

QUANTIZATIONS = (None, "dynamic", "float16", "int8", "int16x8")
CALIBRATION_SAMPLES = 100
CHECKED_SAMPLES = 8
# Signal-to-noise ratio against the Keras model, in decibels, that the file of a trained model reaches.
LEAST_SNR = {None: 60.0, "float16": 30.0, "dynamic": 10.0, "int8": 10.0, "int16x8": 10.0}
_log = logging.getLogger(__name__)


def export(
    model: keras.Model,
    path: str | pathlib.Path,
    quantization: str | None = None,
    representative_data: Any = None,
    input_type: str = "uint8",
    class_names: Sequence[str] | None = None,
    *,
    sparse: bool = False,
) -> TFLiteModel:
    """Writes a .tflite file and returns it opened, after it ran and agreed with the model.

    int8 is the smallest and fastest on phones and microcontrollers: a model from `quantize_aware` needs no
    data for it, any other needs representative inputs. "dynamic" stores int8 weights and computes in float.
    "float16" halves the file. "int16x8" keeps 16-bit activations for models that int8 hurts.

    Args:
        model: A built Keras model with one input and one output.
        path: File to write. It appears only when every check has passed.
        quantization: None (float32), "dynamic", "float16", "int8" or "int16x8".
        representative_data: Inputs as the model will see them, for "int8" and "int16x8" of a float model:
            a batched dataset or an array. 100 samples are used, at least 2 are needed. If the model leaves
            its input's size open, the file takes that of these inputs, with any quantization.
        input_type: What an int8 file takes: "uint8" (pixels as they come), "int8" or "float32". The other
            files take float32. Outputs are always float32.
        class_names: Labels to store in the file, one per output. Any zip program shows them.
        sparse: Store a pruned model without its zeros: 80 % of them save two thirds of the file, at the
            same speed. For None and "float16" only: int8 files made so are refused by the interpreters.

    Raises:
        ValueError: a combination that does not work, operations that TFLite lacks, unfit data, a model that
            has not seen data yet, or a file that does not agree with the model.

    Example:
        >>> tfopt.compress.export(model, "flowers.tflite", "int8", train, class_names=names)
    """
    check_instance("model", model, keras.Model)
    check_choice("quantization", quantization, QUANTIZATIONS)
    check_choice("input_type", input_type, ("uint8", "int8", "float32"))
    if sparse and quantization not in (None, "float16"):
        fix = "A zip file compresses the zeros of a dense int8 file as well."
        raise ValueError(message("quantization", "None or 'float16' with sparse=True", quantization, fix))
    _check_model(model, quantization)
    _check_class_names(model, class_names)
    model = in_float32(model)  # the converter has no operations in half precision
    trained = any(isinstance(layer, FakeQuantize) for layer in model.layers)
    needs_data = quantization in ("int8", "int16x8") and not trained
    data = _calibration(model, representative_data) if needs_data else None
    checked = data if data is not None else _checked_inputs(model, representative_data)
    expected = _outputs(model, checked[:CHECKED_SAMPLES])
    content = converted(_sized(model, checked.shape[1:]), quantization, data, input_type, sparse)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        candidate = pathlib.Path(folder) / path.name
        candidate.write_bytes(content)
        if class_names is not None:
            with zipfile.ZipFile(candidate, "a") as archive:
                undated = zipfile.ZipInfo(LABELS)  # the same model gives the same file
                archive.writestr(undated, "\n".join(class_names))
        _verify(TFLiteModel(candidate), checked[:CHECKED_SAMPLES], expected, quantization)
        os.replace(candidate, path)
    return TFLiteModel(path)


def _check_model(model: keras.Model, quantization: str | None) -> None:
    if not model.built or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError("`model` must be built and have one input and one output.")
    ranges = [layer for layer in model.layers if isinstance(layer, FakeQuantize)]
    if ranges and quantization != "int8":
        fix = "Export the model that was given to `quantize_aware` instead."
        raise ValueError(message("quantization", "'int8' for a quantize_aware model", quantization, fix))
    empty = [layer.name for layer in ranges if not layer.calibrated]
    if empty:
        raise ValueError(f"The model has not seen data: fit it before the export. Ranges unset: {empty[:3]}.")


def _check_class_names(model: keras.Model, class_names: Sequence[str] | None) -> None:
    if class_names is None:
        return
    lines = not isinstance(class_names, str) and all(
        isinstance(name, str) and len(name.splitlines()) == 1 for name in class_names
    )
    if not lines or len(class_names) != model.output_shape[-1]:
        expected = f"{model.output_shape[-1]} names of one line, one for each output"
        raise ValueError(message("class_names", expected, class_names))


def _calibration(model: keras.Model, data: Any) -> np.ndarray:
    if data is None:
        fix = "Give a batched dataset of training images, or train the model with `quantize_aware`."
        raise ValueError(message("representative_data", "inputs for the ranges of activations", data, fix))
    return _fitting(model, samples(data, CALIBRATION_SAMPLES), least=2)


def _checked_inputs(model: keras.Model, data: Any) -> np.ndarray:
    if data is not None:
        return _fitting(model, samples(data, CHECKED_SAMPLES), least=1)
    (tensor,) = model.inputs
    if None in tensor.shape[1:]:
        expected = f"inputs of the size that the file shall take: the model's is {tensor.shape[1:]}"
        raise ValueError(message("representative_data", expected, data))
    top = 1.0 if "int" in tensor.dtype else 255.0  # indices: the smallest ones exist in every vocabulary
    noise = np.random.default_rng(0).uniform(0.0, top, [CHECKED_SAMPLES, *tensor.shape[1:]])
    return np.round(noise).astype(tensor.dtype)


def _fitting(model: keras.Model, inputs: np.ndarray, least: int) -> np.ndarray:
    (tensor,) = model.inputs
    shape, finite = tensor.shape[1:], bool(np.isfinite(inputs).all())
    fits = inputs.ndim == len(shape) + 1 and all(
        want in (None, got) for want, got in zip(shape, inputs.shape[1:])
    )
    if not fits or len(inputs) < least or not finite:
        raise ValueError(
            f"`representative_data` must be at least {least} finite inputs of shape {shape}. "
            f"Received: shape {inputs.shape}, all finite: {finite}."
        )
    return inputs.astype(tensor.dtype)


def _sized(model: keras.Model, sizes: tuple[int, ...]) -> keras.Model:
    """The model for inputs of one size: interpreters plan their memory, and take 1 for a size left open."""
    (tensor,) = model.inputs
    if None not in tensor.shape[1:]:
        return model
    inputs = keras.Input(sizes, dtype=tensor.dtype, name=tensor.name)
    return keras.Model(inputs, model(inputs), name=model.name)


def _outputs(model: keras.Model, inputs: np.ndarray) -> np.ndarray:
    """What the file has to give; the converter may end the process at infinite numbers."""
    weights = [v for v in model.weights if "float" in str(v.dtype)]
    broken = [v.path for v in weights if not np.isfinite(v.numpy()).all()]
    if broken:
        raise ValueError(f"Weights and ranges must be finite. Received NaN or infinity in {broken[:3]}.")
    outputs = np.asarray(model(inputs, training=False))
    if not np.isfinite(outputs).all():
        raise ValueError("The model computes NaN or infinity on the data: nothing was written.")
    return outputs


def _verify(file: TFLiteModel, inputs: np.ndarray, expected: np.ndarray, quantization: str | None) -> None:
    """Runs the file on a few inputs: refuses it if it fails, warns if it does not do what the model does."""
    received = file.predict(inputs)
    if not np.isfinite(received).all():
        raise ValueError("The file computes NaN or infinity: it was not written.")
    noise = max(float(np.mean(np.square(expected - received))), 1e-20)
    signal = max(float(np.mean(np.square(expected - expected.mean()))), 1e-20)
    ratio = 10.0 * math.log10(signal / noise)
    _log.info("%s agrees with the model to %.1f dB", file.path.name, ratio)
    left = file.inspect().float_operations if quantization == "int8" else {}
    if left:
        _log.warning("%s computes in float: %s", file.path.name, left)
    if ratio >= LEAST_SNR[quantization] or noise < 1e-9:
        return
    text = f"{file.path.name} agrees with the model only to {ratio:.1f} dB on {len(inputs)} inputs"
    if quantization in (None, "float16"):
        raise ValueError(f"{text}, so it was not written.")
    _log.warning("%s. Measure it with `compare`; `quantize_aware` training may help.", text)
