"""The comparison of a file with the model that it was made of."""

import logging
from collections.abc import Sequence

import keras
import numpy as np

from tfopt._keras_internals import every_layer
from tfopt.compress._agreement import agreements
from tfopt.compress._ports import Portable
from tfopt.compress.inspection import Inspection
from tfopt.compress.quantization.layers import FakeQuantize, unrounded
from tfopt.compress.tflite_model import TFLiteModel

SPLIT = (
    "Quantities of very different size share one scale in this output: give each its own output, "
    "`keras.Model(inputs, {'a': a, 'b': b})`, without the layer that joins them."
)
_HALF = (
    " Half precision is exact to three digits from 6e-5 to 65,504: scale smaller weights up, or export with "
    "quantization=None or 'dynamic'."
)
_logger = logging.getLogger(__name__)


def ranges_of(model: keras.Model) -> list[FakeQuantize]:
    """The layers of a quantized model that round activations."""
    return [layer for layer in every_layer(model) if isinstance(layer, FakeQuantize)]


def expected_of(model: Portable, inputs: list[np.ndarray], batch_size: int | None) -> list[np.ndarray]:
    """What the file has to give."""
    try:
        outputs = model.predict(inputs)
    except (ValueError, TypeError):
        if batch_size != 1:
            raise
        outputs = model.predict(inputs, batch=1)  # of a model that only takes single samples
    if not all(np.isfinite(output).all() for output in outputs):
        raise ValueError("The model computes NaN or infinity on the data: nothing was written.")
    return outputs


def verify(
    file: TFLiteModel,
    model: Portable,
    inputs: list[np.ndarray],
    expected: list[np.ndarray],
    quantization: str | None,
) -> Inspection:
    """Runs the file on a few inputs: refuses it if it fails, warns if it does not do what the model does.

    Returns what the file contains.
    """
    received, contents = file.run(inputs), file.inspect()
    if not all(np.isfinite(output).all() for output in received):
        raise ValueError("The file computes NaN or infinity: it was not written.")
    left = contents.float_operations if quantization in ("int8", "int16x8") else {}
    if left:
        _logger.warning("%s computes in float: %s", file.path.name, left)
    steps = contents.output_steps
    if ranges_of(model.model):
        _warn_of_shared_scales(file, model, inputs, expected, steps)
    found = agreements(model.outputs, expected, received, quantization, steps)
    for output in found:
        _logger.info("%s, %r agrees with the model to %.1f dB", file.path.name, output.name, output.decibels)
    bad = [output for output in found if not output.is_good]
    if not bad:
        return contents
    text = f"{file.path.name}: " + "; ".join(output.sentence() for output in bad)
    text += f", on {len(inputs[0])} inputs"
    if quantization in (None, "float16"):
        raise ValueError(f"{text}, so it was not written.{_HALF if quantization == 'float16' else ''}")
    advice = "Measure it with `compare`; `quantize_aware` training may help."
    if quantization == "int8" and any(output.shares_a_scale for output in bad):
        advice = SPLIT
    elif ranges_of(model.model):
        advice = (
            "Train longer, leave layers in float with `skip=`, or give `representative_data` to check with."
        )
    _logger.warning("%s. %s", text, advice)
    return contents


def _warn_of_shared_scales(
    file: TFLiteModel,
    model: Portable,
    inputs: list[np.ndarray],
    expected: list[np.ndarray],
    steps: Sequence[float],
) -> None:
    """Names channels that the rounding of a quantized model has erased: there the file agrees with it."""
    with unrounded():
        exact = expected_of(model, inputs, batch_size=1)
    lost = [out for out in agreements(model.outputs, exact, expected, "int8", steps) if out.shares_a_scale]
    if lost:
        text = "; ".join(output.sentence() for output in lost)
        _logger.warning("%s: without rounding of activations, %s. %s", file.path.name, text, SPLIT)
