"""Settings found by trying: `search` over keras-tuner's algorithms, with a journal that survives a crash."""

from tfopt.tune.journal import Trial
from tfopt.tune.objective import Objective
from tfopt.tune.parallel import launch_search
from tfopt.tune.result import SearchResult
from tfopt.tune.search import search
from tfopt.tune.space import Range

__all__ = ["Objective", "Range", "SearchResult", "Trial", "launch_search", "search"]
