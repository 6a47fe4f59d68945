"""What the runtimes of small devices and accelerators can compute of a file."""

import logging

from tfopt._checks import check_choice, message
from tfopt.compress.inspection import Inspection

# tflite-micro's own resolver of all operations: python/tflite_micro/python_ops_resolver.cc.
_MICRO = """ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_TO_SPACE_ND BROADCAST_ARGS
BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTH_TO_SPACE DEPTHWISE_CONV_2D
DEQUANTIZE DIV ELU EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER
GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL
LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAX_POOL_2D MAXIMUM MEAN MINIMUM
MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_MAX RELU RELU6
RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX
SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE
SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE
ZEROS_LIKE"""
# The Edge TPU compiler's list of supported operations: coral.ai/docs/edgetpu/models-intro.
_EDGE_TPU = """ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED
L2_NORMALIZATION LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX
REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE
SOFTMAX SPACE_TO_DEPTH SPLIT SQUEEZE STRIDED_SLICE SUB SUM SQUARED_DIFFERENCE TANH TRANSPOSE
TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM"""
# The GPU delegate's own list: NewOperationParser in LiteRT's tflite/delegates/gpu/common/model_builder.cc.
# DEQUANTIZE is among them because weights in half precision pass through it.
_GPU = """ABS ADD ADD_N AVERAGE_POOL_2D BATCH_MATMUL CAST CONCATENATION CONV_2D COS CUMSUM DENSIFY
DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV ELU EQUAL EXP FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED
GATHER GELU GREATER GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGISTIC LSTM
MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL ONE_HOT PACK PAD PADV2 POW PRELU
REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR
RESIZE_NEAREST_NEIGHBOR RSQRT SELECT SELECT_V2 SIGN SIN SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SPLIT_V SQRT
SQUARE SQUARED_DIFFERENCE STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE TRANSPOSE_CONV UNPACK"""
_OPERATIONS = {"tflm": _MICRO.split(), "edgetpu": _EDGE_TPU.split(), "gpu": _GPU.split()}
_NAMES = {"tflm": "TensorFlow Lite Micro", "edgetpu": "the Edge TPU", "gpu": "TFLite's GPU delegate"}
TARGETS = (None, *_NAMES)
_PRECISIONS = {
    "tflm": (None, "int8", "int16x8"),
    "edgetpu": ("int8",),
    "gpu": (None, "float16"),
}
_logger = logging.getLogger(__name__)


def check_options(target: str | None, quantization: str | None, batch_size: int | None) -> None:
    """Refuses options with which no file runs on the target.

    Raises:
        ValueError: If precision or batch size are not for the target.
    """
    check_choice("target", target, TARGETS)
    if target is None:
        return
    if quantization not in _PRECISIONS[target]:
        allowed = " or ".join(map(repr, _PRECISIONS[target]))
        raise ValueError(message("quantization", f"{allowed} with target={target!r}", quantization))
    if batch_size is None:
        raise ValueError(message("batch_size", f"an integer with target={target!r}", batch_size))


def check_operations(target: str | None, contents: Inspection, file: str) -> None:
    """Compares the operations of a file with the list that the target's makers publish.

    Microcontrollers have nothing else to compute an operation with; elsewhere the processor does it.

    Raises:
        ValueError: If TensorFlow Lite Micro lacks an operation; it is named.
    """
    if target is None:
        return
    lacking = {name: n for name, n in contents.operation_counts.items() if name not in _OPERATIONS[target]}
    if target == "edgetpu":
        lacking |= {f"{name} in float": n for name, n in contents.float_operations.items()}
    if not lacking:
        return
    text = f"{file} has operations that {_NAMES[target]} does not compute: {lacking}"
    if target == "tflm":
        raise ValueError(f"{text}. It was not written. Use other layers in their place.")
    _logger.warning("%s. The processor computes them, and what lies behind them on an Edge TPU.", text)
