"""tfopt: Keras 3 models on TensorFlow that train faster, generalise better and ship smaller.

Importing tfopt registers every serialisable class, so that ``keras.models.load_model`` finds them. Parts
without such classes are imported at their first use, as are tfmot, keras-tuner, TFDS and scikit-learn.
`tfopt doctor` alone starts without Keras, which may be what is broken.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tfopt._surroundings import is_doctor

if not is_doctor():
    from tfopt import compress, data, losses, models, optimizers, schedules

if TYPE_CHECKING:
    from tfopt import callbacks, distribute, recipes, report, tune
    from tfopt.recipes.config import FinetuneConfig
    from tfopt.recipes.finetune import FinetuneResult, finetune

    __version__: str

_LAZY_PARTS = ("callbacks", "distribute", "recipes", "report", "tune")
_LAZY_NAMES = ("FinetuneConfig", "FinetuneResult", "finetune")

__all__ = [
    "FinetuneConfig",
    "FinetuneResult",
    "__version__",
    "callbacks",
    "compress",
    "data",
    "distribute",
    "finetune",
    "losses",
    "models",
    "optimizers",
    "recipes",
    "report",
    "schedules",
    "tune",
]


def __getattr__(name: str) -> Any:
    """Imports a lazy part, or a name of `tfopt.recipes`, when it is first asked for (PEP 562)."""
    if name in _LAZY_PARTS:
        return importlib.import_module(f"tfopt.{name}")
    if name in _LAZY_NAMES:
        return getattr(importlib.import_module("tfopt.recipes"), name)
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("tfopt")
    raise AttributeError(f"module 'tfopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
