"""tfopt: Keras 3 models on TensorFlow that train faster, generalise better and ship smaller.

Importing tfopt registers every serialisable class, so that ``keras.models.load_model`` finds them.
tfmot, keras-tuner, TFDS, scikit-learn and matplotlib are imported where they are first used.
"""

from importlib.metadata import version

from tfopt import (
    callbacks,
    compress,
    data,
    distribute,
    losses,
    models,
    optimizers,
    report,
    schedules,
    tune,
)
from tfopt.recipes import FinetuneConfig, FinetuneResult, finetune

__version__ = version("tfopt")

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
    "report",
    "schedules",
    "tune",
]
