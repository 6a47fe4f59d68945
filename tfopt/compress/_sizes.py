"""How large the file of a small network would be without its quantization."""

import logging
from typing import Any

import numpy as np

from tfopt import _tflite_internals
from tfopt.compress._flatbuffer import packed

schema = _tflite_internals.schema()

_SMALL = 65_536  # bytes: the weights of larger files outweigh what quantization adds
_INEXACT = 192  # bytes by which `float_size` is off
_KINDS = schema.TensorType
_logger = logging.getLogger(__name__)


def warn_of_size(content: bytes, name: str, quantization: str | None) -> None:
    """Logs a warning if the file of a tiny network is larger than that of the network in float."""
    if quantization in (None, "float16") or len(content) > _SMALL:
        return
    in_float = float_size(content)
    if len(content) > in_float + _INEXACT:
        _logger.warning(
            "%s has %d bytes, about %d more than the file of the same network in float: with so few weights, "
            "scales and conversions at the ends take more than integers save. If the size is what counts, "
            "export with quantization=None; if the device computes in integers, %r is still right.",
            *(name, len(content), len(content) - in_float, quantization),
        )


def float_size(content: bytes) -> int:
    """The size of a file without scales, with weights in float and without operations that convert."""
    model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    converting = (schema.BuiltinOperator.QUANTIZE, schema.BuiltinOperator.DEQUANTIZE)
    sizes = {_KINDS.INT8: 4, _KINDS.INT64: 0.5}
    for graph in model.subgraphs:
        operators = graph.operators or []
        kept = [op for op in operators if model.operatorCodes[op.opcodeIndex].builtinCode not in converting]
        used = {int(index) for op in kept for index in [*op.inputs, *op.outputs]}
        for tensor in graph.tensors:
            buffer = model.buffers[tensor.buffer]
            is_weight = tensor.quantization is not None and tensor.quantization.scale is not None
            if is_weight and tensor.type in sizes and buffer.data is not None and len(buffer.data):
                buffer.data = np.zeros(int(len(buffer.data) * sizes[tensor.type]), np.uint8)
            tensor.quantization = None
        for index, tensor in enumerate(graph.tensors):
            if index not in used:
                tensor.name, tensor.shape, tensor.shapeSignature = b"", None, None
        graph.operators = kept
    model.operatorCodes = [
        code
        for number, code in enumerate(model.operatorCodes)
        if any(op.opcodeIndex == number for graph in model.subgraphs for op in graph.operators)
    ]
    return len(packed(model))
