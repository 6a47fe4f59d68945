"""Smaller models: pruning, quantization and the verified export of what comes out.

Parts without serialisable classes are imported at their first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tfopt.compress.binarization import (
    BinaryConv2D,
    BinaryDense,
    TernaryConv2D,
    TernaryDense,
    binarize,
    ternarize,
)
from tfopt.compress.compare import Comparison, compare
from tfopt.compress.distillation import Distillation, SoftTargets
from tfopt.compress.export import export
from tfopt.compress.quantization import (
    FakeQuantize,
    FreezeStatistics,
    QuantizedConv2D,
    QuantizedDense,
    QuantizedDepthwiseConv2D,
    quantize_aware,
)
from tfopt.compress.tflite_model import TFLiteModel

if TYPE_CHECKING:
    from tfopt.compress.bridge import from_tf_keras, to_tf_keras
    from tfopt.compress.clustering.callback import Clustering
    from tfopt.compress.pruning import CubicSparsity, OneShotSparsity, Pruning
    from tfopt.compress.sensitivity_scan import Sensitivity, sensitivity
    from tfopt.compress.slimming import ChannelSparsity, slim
    from tfopt.compress.sparse_training import SparseTraining

_LAZY = {
    "ChannelSparsity": "slimming",
    "Clustering": "clustering.callback",
    "CubicSparsity": "pruning",
    "OneShotSparsity": "pruning",
    "Pruning": "pruning",
    "Sensitivity": "sensitivity_scan",
    "SparseTraining": "sparse_training",
    "from_tf_keras": "bridge",
    "sensitivity": "sensitivity_scan",
    "slim": "slimming",
    "to_tf_keras": "bridge",
}

__all__ = [
    "BinaryConv2D",
    "BinaryDense",
    "ChannelSparsity",
    "Clustering",
    "Comparison",
    "CubicSparsity",
    "Distillation",
    "FakeQuantize",
    "FreezeStatistics",
    "OneShotSparsity",
    "Pruning",
    "QuantizedConv2D",
    "QuantizedDense",
    "QuantizedDepthwiseConv2D",
    "Sensitivity",
    "SoftTargets",
    "SparseTraining",
    "TFLiteModel",
    "TernaryConv2D",
    "TernaryDense",
    "binarize",
    "compare",
    "export",
    "from_tf_keras",
    "quantize_aware",
    "sensitivity",
    "slim",
    "ternarize",
    "to_tf_keras",
]


def __getattr__(name: str) -> Any:
    """Imports a part when one of its names is first asked for (PEP 562)."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"tfopt.compress.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'tfopt.compress' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
