"""The only door to tensorflow-model-optimization.

Importing tfmot sets TF_USE_LEGACY_KERAS=1 for the process and its children, and turns `tf.keras` into
Keras 2 if nothing has touched it yet. So Keras is imported first and the variable is put back.
"""

import os
from types import ModuleType

import keras  # noqa: F401  (must come before tfmot, see above)
import tensorflow as tf

from tfopt._optional import require

_VARIABLE = "TF_USE_LEGACY_KERAS"


def tfmot() -> ModuleType:
    """Imports tfmot without its side effects on `tf.keras` and on the environment."""
    _ = tf.keras.__version__  # resolves the lazy loader to Keras 3 for good
    before = os.environ.get(_VARIABLE)
    try:
        return require("tensorflow_model_optimization", "This part of `tfopt.compress`")
    finally:
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before
