"""One call for a whole job: fine-tune, compress, evaluate, predict."""

from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.finetune import FinetuneResult, finetune

__all__ = ["FinetuneConfig", "FinetuneResult", "finetune"]
