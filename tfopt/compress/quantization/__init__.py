"""Quantization-aware training: models that train with the rounding of their int8 file."""

from tfopt.compress.quantization.freeze import FreezeStatistics
from tfopt.compress.quantization.kernels import QuantizedConv2D, QuantizedDense, QuantizedDepthwiseConv2D
from tfopt.compress.quantization.layers import FakeQuantize
from tfopt.compress.quantization.quantize import quantize_aware

__all__ = [
    "FakeQuantize",
    "FreezeStatistics",
    "QuantizedConv2D",
    "QuantizedDense",
    "QuantizedDepthwiseConv2D",
    "quantize_aware",
]
