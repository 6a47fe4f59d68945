"""Packages that are imported only where they are used, and the command that installs a missing one."""

import importlib
from types import ModuleType

_INSTALL = {
    "ai_edge_litert.interpreter": "ai-edge-litert",
    "keras_tuner": "keras-tuner",
    "matplotlib.pyplot": "matplotlib",
    "sklearn": "scikit-learn",
    "tensorflow_datasets": "tensorflow-datasets",
    "tensorflow_model_optimization": "tensorflow-model-optimization",
}


def require(module: str, purpose: str) -> ModuleType:
    """Imports a module or raises an ImportError that says what it is for and how to install it.

    Args:
        module: Dotted module name, such as "keras_tuner".
        purpose: What needs it, as the subject of a sentence: "`tfopt.tune.search`".
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = _INSTALL.get(module, module.split(".")[0])
        raise ImportError(
            f"{purpose} needs `{package}`. Install it with: pip install {package}. ({error})"
        ) from error
