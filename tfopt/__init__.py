"""tfopt: Keras 3 models on TensorFlow that train faster, generalize better and ship smaller.

Importing tfopt imports neither Keras nor TensorFlow: its parts are imported at their first use. Every
serializable class is registered as soon as Keras is imported, before or after tfopt, so that
``keras.models.load_model`` finds them.
"""

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from tfopt._lazy import lazy_names

if TYPE_CHECKING:
    from tfopt import (
        callbacks,
        compress,
        data,
        distribute,
        losses,
        models,
        optimizers,
        recipes,
        report,
        schedules,
        tasks,
        testing,
        tune,
    )
    from tfopt.recipes.config import FinetuneConfig
    from tfopt.recipes.finetuning import FinetuneResult, finetune

__version__ = "0.1.0"

_PARTS = (
    *("callbacks", "compress", "data", "distribute", "losses", "models", "optimizers"),
    *("recipes", "report", "schedules", "tasks", "testing", "tune"),
)
# Every module that registers a class; a test compares them with the source.
_SERIALIZABLE = (
    *("schedules", "losses", "optimizers", "callbacks", "models.sharpness_aware", "data.reduce"),
    "models._rematerialize",
    "models._keras2_layers",
    *("distribute.scaling", "compress.binarization", "compress.distillation", "compress.quantization"),
    "tasks.lessons",
    "_named_outputs",
)
# Modules that registration needs, by the beginning of their names, and those among them without Keras.
_NEEDS_KERAS = (
    *("tfopt.schedules", "tfopt.losses", "tfopt.optimizers", "tfopt.callbacks", "tfopt.models."),
    *("tfopt.compress.", "tfopt.data.reduce", "tfopt.distribute.scaling", "tfopt.tasks.lessons"),
    *("tfopt._keras_internals", "tfopt._named_outputs", "tfopt._batch_norm", "tfopt._tfmot"),
)
_LIGHT = (
    *("tfopt.compress._data", "tfopt.compress._interpreter", "tfopt.compress._judging"),
    *("tfopt.compress._flatbuffer", "tfopt.compress._finer_outputs", "tfopt.compress._representative"),
    *("tfopt.compress._labels", "tfopt.compress._matching", "tfopt.compress._structure"),
    *("tfopt.compress._probe", "tfopt.compress._probe_child", "tfopt.compress._pixel_scales"),
    *("tfopt.compress.inspection", "tfopt.compress.tflite_model"),
    *("tfopt.models._architectures", "tfopt.models._catalog"),
)

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
    "tasks",
    "testing",
    "tune",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(_PARTS, ""),
        "FinetuneConfig": "recipes.config",
        "FinetuneResult": "recipes.finetuning",
        "finetune": "recipes.finetuning",
    },
)


def _register(keras: Any) -> None:
    """Imports the modules with serializable classes: Keras imports no third-party module when it loads."""
    for module in _SERIALIZABLE:
        importlib.import_module(f"tfopt.{module}")


class _KerasHook:
    """Finds no module itself: registers our classes when Keras is imported, and imports it in time.

    Keras comes before the first tfopt module that needs it. If such a module imported Keras itself,
    registration would run in the middle of that import, and fail where it needs the same module.
    """

    _hooked = False

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        """What Python's other finders find, for Keras with our hook behind it; None leaves it to them."""
        if fullname.startswith(_NEEDS_KERAS) and fullname not in _LIGHT:
            importlib.import_module("keras")
        if fullname != "keras" or self._hooked:
            return None
        self._hooked = True
        import wrapt  # takes longer to import than tfopt; TensorFlow brings and imports it anyway

        wrapt.register_post_import_hook(_register, "keras")
        return importlib.util.find_spec("keras")  # asks wrapt's finder, which is now the first


if "keras" in sys.modules:
    _register(sys.modules["keras"])
else:
    sys.meta_path.insert(0, _KerasHook())
