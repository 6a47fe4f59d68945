"""One call for a whole job: fine-tune, compress, export, evaluate, predict."""

from typing import TYPE_CHECKING

from tfopt._lazy import lazy_names

if TYPE_CHECKING:
    from tfopt.recipes.compress_config import CompressConfig
    from tfopt.recipes.compressing import CompressResult, compress
    from tfopt.recipes.config import FinetuneConfig
    from tfopt.recipes.evaluating import Evaluation, evaluate
    from tfopt.recipes.exporting import export
    from tfopt.recipes.finetuning import FinetuneResult, finetune
    from tfopt.recipes.fronting import FrontResult, compress_front
    from tfopt.recipes.predicting import Prediction, predict

__all__ = [
    "CompressConfig",
    "CompressResult",
    "Evaluation",
    "FinetuneConfig",
    "FinetuneResult",
    "FrontResult",
    "Prediction",
    "compress",
    "compress_front",
    "evaluate",
    "export",
    "finetune",
    "predict",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CompressConfig": "compress_config",
        "CompressResult": "compressing",
        "Evaluation": "evaluating",
        "FinetuneConfig": "config",
        "FinetuneResult": "finetuning",
        "FrontResult": "fronting",
        "Prediction": "predicting",
        "compress": "compressing",
        "compress_front": "fronting",
        "evaluate": "evaluating",
        "export": "exporting",
        "finetune": "finetuning",
        "predict": "predicting",
    },
)
