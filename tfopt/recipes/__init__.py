"""One call for a whole job: fine-tune, evaluate, predict."""

from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.evaluate import evaluate
from tfopt.recipes.finetune import FinetuneResult, finetune
from tfopt.recipes.predict import Prediction, predict

__all__ = ["FinetuneConfig", "FinetuneResult", "Prediction", "evaluate", "finetune", "predict"]
