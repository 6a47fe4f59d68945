"""Settings found by trying and by measuring: `search` for what is learned, `tune_throughput` for how fast."""

from tfopt.tune.autotune import autotune
from tfopt.tune.batch_size import BatchSizes, find_batch_size
from tfopt.tune.faster import FasterTraining
from tfopt.tune.hypermodel import HyperModelJob
from tfopt.tune.journal import Trial
from tfopt.tune.objective import Objective
from tfopt.tune.parallel import launch_search
from tfopt.tune.result import SearchResult
from tfopt.tune.search import search
from tfopt.tune.space import Range, When
from tfopt.tune.throughput import tune_throughput
from tfopt.tune.training_setting import TrainingSetting

__all__ = [
    "BatchSizes",
    "FasterTraining",
    "HyperModelJob",
    "Objective",
    "Range",
    "SearchResult",
    "TrainingSetting",
    "Trial",
    "When",
    "autotune",
    "find_batch_size",
    "launch_search",
    "search",
    "tune_throughput",
]
