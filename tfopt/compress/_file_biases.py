"""Takes back, in an int8 file, the shift that rounded kernels give to the mean of every channel."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from tfopt import _tflite_internals

schema = _tflite_internals.schema()
CODES = schema.BuiltinOperator
CHANNEL_AXIS = {CODES.CONV_2D: 0, CODES.DEPTHWISE_CONV_2D: 3, CODES.FULLY_CONNECTED: 0}
MOST_STEPS = 0.75  # by which a rounded weight may differ; more, and it is the weight of another layer


@final
@dataclass(frozen=True)
class _Call:
    """An operation with a kernel: its kind, its options, and the tensors that it reads and makes."""

    kind: int
    options: Any
    inputs: list[int]
    output: int


def corrected(content: bytes, original: bytes, means: dict[int, np.ndarray]) -> bytes:
    """The int8 file with other biases.

        bias_c <- bias_c - sum over the kernel of (rounded weight - weight) * mean of its input

    Args:
        content: The int8 file, just quantized: no two constants share their bytes.
        original: The float file that it was made of.
        means: The mean of each channel of the tensors of `original`, by number.

    References:
        Nagel et al.: Data-Free Quantization Through Weight Equalization and Bias Correction. arXiv:1906.04721
    """
    edited = bytearray(content)
    model, source = schema.Model.GetRootAs(edited, 0), schema.Model.GetRootAs(original, 0)
    calls, sources = _calls(model), _calls(source)
    if [call.kind for call in calls] != [call.kind for call in sources]:
        return content
    for call, other in zip(calls, sources):
        if other.inputs[0] not in means or sum(call.inputs[2] in each.inputs for each in calls) > 1:
            continue
        rounding = _rounding(model, source, call, other)
        bias = _constant(model, call.inputs[2], schema.TensorType.INT32)
        if rounding is None or bias is None:
            continue
        shift = _shift(rounding, means[other.inputs[0]], call, _coverage(source, other))
        scales = model.Subgraphs(0).Tensors(call.inputs[2]).Quantization().ScaleAsNumpy()
        if shift is not None and len(shift) == bias.size:
            bias.reshape(-1)[:] -= np.rint(shift / scales).astype(np.int32)  # a view of `edited`
    return bytes(edited)


def inputs_of_kernels(content: bytes) -> list[int]:
    """Numbers of the tensors whose means `corrected` needs."""
    return [call.inputs[0] for call in _calls(schema.Model.GetRootAs(content, 0))]


def _calls(model: Any) -> list[_Call]:
    """Convolutions and dense layers of the main graph that have a bias, in their order."""
    graph = model.Subgraphs(0)
    found: list[_Call] = []
    for place in range(graph.OperatorsLength()):
        operator = graph.Operators(place)
        kind = model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()
        inputs = [int(index) for index in operator.InputsAsNumpy()]
        if kind in CHANNEL_AXIS and len(inputs) > 2 and inputs[2] >= 0:
            found.append(_Call(kind, operator.BuiltinOptions(), inputs, int(operator.Outputs(0))))
    return found


def _constant(model: Any, index: int, kind: int) -> np.ndarray | None:
    """The values of a constant of a type; None if it is none."""
    tensor = model.Subgraphs(0).Tensors(index)
    buffer = model.Buffers(tensor.Buffer())
    if tensor.Type() != kind or not buffer.DataLength():
        return None
    dtype = {schema.TensorType.FLOAT32: "<f4", schema.TensorType.INT32: "<i4", schema.TensorType.INT8: "<i1"}
    return buffer.DataAsNumpy().view(dtype[kind]).reshape(tensor.ShapeAsNumpy())


def _rounding(model: Any, source: Any, call: _Call, other: _Call) -> np.ndarray | None:
    """What rounding added to each weight."""
    rounded = _constant(model, call.inputs[1], schema.TensorType.INT8)
    weights = _constant(source, other.inputs[1], schema.TensorType.FLOAT32)
    if rounded is None or weights is None or rounded.shape != weights.shape:
        return None
    scales = model.Subgraphs(0).Tensors(call.inputs[1]).Quantization().ScaleAsNumpy()
    shape = [1] * weights.ndim
    shape[CHANNEL_AXIS[call.kind]] = -1
    step = scales.reshape(shape) if scales.size > 1 else scales[0]
    added = rounded * step - weights
    return added if np.all(np.abs(added) <= MOST_STEPS * step) else None


def _shift(added: np.ndarray, means: np.ndarray, call: _Call, coverage: np.ndarray) -> np.ndarray | None:
    """How much the mean of each output channel moves."""
    if call.kind == CODES.FULLY_CONNECTED:
        return added @ means if added.shape[1] == len(means) else None
    if call.kind == CODES.DEPTHWISE_CONV_2D:
        taps = (added[0] * coverage[:, :, None]).sum((0, 1))
        return taps * np.repeat(means, len(taps) // len(means)) if len(taps) % len(means) == 0 else None
    taps = (added * coverage[None, :, :, None]).sum((1, 2))
    groups = len(means) // taps.shape[1]
    if groups * taps.shape[1] != len(means) or len(taps) % groups:
        return None
    rows = np.repeat(means.reshape(groups, -1), len(taps) // groups, axis=0)
    return (taps * rows).sum(1)


def _coverage(source: Any, call: _Call) -> np.ndarray:
    """The share of places at which each weight of a kernel meets the input and not the padding around it."""
    if call.kind == CODES.FULLY_CONNECTED:
        return np.ones((1, 1))
    table = call.options
    kind = schema.Conv2DOptions if call.kind == CODES.CONV_2D else schema.DepthwiseConv2DOptions
    options = kind()
    options.Init(table.Bytes, table.Pos)
    tensors = source.Subgraphs(0).Tensors
    sizes, taps, places = (tensors(i).ShapeAsNumpy() for i in (call.inputs[0], call.inputs[1], call.output))
    steps = (options.StrideH(), options.StrideW())
    widths = (options.DilationHFactor(), options.DilationWFactor())
    padded = options.Padding() == schema.Padding.SAME
    rows, columns = (
        _covered(int(sizes[axis + 1]), int(taps[axis + 1]), int(places[axis + 1]), step, width, padded)
        for axis, (step, width) in enumerate(zip(steps, widths))
    )
    return np.outer(rows, columns)


def _covered(size: int, taps: int, places: int, step: int, width: int, padded: bool) -> np.ndarray:
    before = max((places - 1) * step + (taps - 1) * width + 1 - size, 0) // 2 if padded else 0
    met = np.arange(places)[None] * step - before + np.arange(taps)[:, None] * width
    return np.mean((met >= 0) & (met < size), axis=1)
