"""One call for a whole job: fine-tune, compress, evaluate, predict."""

from tfopt.recipes.compress import CompressResult, compress
from tfopt.recipes.compress_config import CompressConfig
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.evaluate import evaluate
from tfopt.recipes.finetune import FinetuneResult, finetune
from tfopt.recipes.predict import Prediction, predict

__all__ = [
    "CompressConfig",
    "CompressResult",
    "FinetuneConfig",
    "FinetuneResult",
    "Prediction",
    "compress",
    "evaluate",
    "finetune",
    "predict",
]
