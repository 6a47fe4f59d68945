"""Smaller models: pruning, quantization and the verified export of what comes out."""

from tfopt.compress.clustering import Clustering
from tfopt.compress.compare import Comparison, compare
from tfopt.compress.export import export
from tfopt.compress.pruning import CubicSparsity, OneShotSparsity, Pruning
from tfopt.compress.quantization import (
    FakeQuantize,
    QuantizedConv2D,
    QuantizedDense,
    QuantizedDepthwiseConv2D,
    quantize_aware,
)
from tfopt.compress.slimming import ChannelSparsity, slim
from tfopt.compress.sparse_training import SparseTraining
from tfopt.compress.tflite_model import TFLiteModel

__all__ = [
    "ChannelSparsity",
    "Clustering",
    "Comparison",
    "CubicSparsity",
    "FakeQuantize",
    "OneShotSparsity",
    "Pruning",
    "QuantizedConv2D",
    "QuantizedDense",
    "QuantizedDepthwiseConv2D",
    "SparseTraining",
    "TFLiteModel",
    "compare",
    "export",
    "quantize_aware",
    "slim",
]
