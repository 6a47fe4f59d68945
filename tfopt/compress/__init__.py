"""Smaller models: pruning, quantization and the verified export of what comes out."""

from typing import TYPE_CHECKING

from tfopt._lazy import lazy_names

if TYPE_CHECKING:
    from tfopt.compress.bias_correction import correct_biases
    from tfopt.compress.binarization import (
        BinaryConv2D,
        BinaryDense,
        TernaryConv2D,
        TernaryDense,
        binarize,
        ternarize,
    )
    from tfopt.compress.bridge import from_tf_keras, to_tf_keras
    from tfopt.compress.clustering.callback import Clustering
    from tfopt.compress.comparison import Comparison, compare
    from tfopt.compress.distillation import Distillation, SoftTargets
    from tfopt.compress.equalization import equalize
    from tfopt.compress.exporting import export
    from tfopt.compress.planning import Budget, Front, Plan, PlanResult, carry_out, front, plan
    from tfopt.compress.pruning import CubicSparsity, OneShotSparsity, Pruning
    from tfopt.compress.quantization import (
        FakeQuantize,
        FreezeStatistics,
        QuantizedConv2D,
        QuantizedDense,
        QuantizedDepthwiseConv2D,
        quantize_aware,
    )
    from tfopt.compress.sensitivity_scan import Sensitivity, sensitivity
    from tfopt.compress.slimming import ChannelSparsity, slim
    from tfopt.compress.sparse_training import SparseTraining
    from tfopt.compress.tflite_model import TFLiteModel

__all__ = [
    "BinaryConv2D",
    "BinaryDense",
    "Budget",
    "ChannelSparsity",
    "Clustering",
    "Comparison",
    "CubicSparsity",
    "Distillation",
    "FakeQuantize",
    "FreezeStatistics",
    "Front",
    "OneShotSparsity",
    "Plan",
    "PlanResult",
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
    "carry_out",
    "compare",
    "correct_biases",
    "equalize",
    "export",
    "from_tf_keras",
    "front",
    "plan",
    "quantize_aware",
    "sensitivity",
    "slim",
    "ternarize",
    "to_tf_keras",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "BinaryConv2D": "binarization",
        "BinaryDense": "binarization",
        "Budget": "planning",
        "Front": "planning",
        "Plan": "planning",
        "PlanResult": "planning",
        "carry_out": "planning",
        "front": "planning",
        "plan": "planning",
        "ChannelSparsity": "slimming",
        "Clustering": "clustering.callback",
        "Comparison": "comparison",
        "CubicSparsity": "pruning",
        "Distillation": "distillation",
        "FakeQuantize": "quantization",
        "FreezeStatistics": "quantization",
        "OneShotSparsity": "pruning",
        "Pruning": "pruning",
        "QuantizedConv2D": "quantization",
        "QuantizedDense": "quantization",
        "QuantizedDepthwiseConv2D": "quantization",
        "Sensitivity": "sensitivity_scan",
        "SoftTargets": "distillation",
        "SparseTraining": "sparse_training",
        "TFLiteModel": "tflite_model",
        "TernaryConv2D": "binarization",
        "TernaryDense": "binarization",
        "binarize": "binarization",
        "compare": "comparison",
        "correct_biases": "bias_correction",
        "equalize": "equalization",
        "export": "exporting",
        "from_tf_keras": "bridge",
        "quantize_aware": "quantization",
        "sensitivity": "sensitivity_scan",
        "slim": "slimming",
        "ternarize": "binarization",
        "to_tf_keras": "bridge",
    },
)
