"""The steps of a job: each is one object with one name, its training constants and its checkpoint folder."""

from tfopt.recipes.stages.clustering import Clustering
from tfopt.recipes.stages.fine_tuning import FineTuning
from tfopt.recipes.stages.head import Head
from tfopt.recipes.stages.pruning import Pruning
from tfopt.recipes.stages.quantization import Quantization
from tfopt.recipes.stages.slimming import Slimming
from tfopt.recipes.stages.stage import History, Stage

__all__ = [
    "Clustering",
    "FineTuning",
    "Head",
    "History",
    "Pruning",
    "Quantization",
    "Slimming",
    "Stage",
]
