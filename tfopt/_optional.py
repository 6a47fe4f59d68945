"""Packages that are imported only where they are used, and the command that installs a missing one."""

import importlib
import importlib.util
from collections.abc import Mapping
from types import ModuleType

# Where the package to install has another name than the module.
_PACKAGES = {
    "keras_tuner": "keras-tuner",
    "tensorflow_datasets": "tensorflow-datasets",
    "tensorflow_model_optimization": "tensorflow-model-optimization",
}
# What `pip install tfopt` leaves out; a test compares this with setup.cfg.
_EXTRAS = {
    "ai_edge_litert": "litert",
    "matplotlib": "report",
    "onnxruntime": "onnx",
    "pillow_heif": "heif",
    "pyarrow": "parquet",
    "sklearn": "report",
    "tensorboard": "search",
    "tf2onnx": "onnx",
}


def install_command(module: str) -> str:
    """The command that installs what holds a module, such as `pip install "tfopt[report]"`."""
    root = module.split(".")[0]
    if root in _EXTRAS:
        return f'pip install "tfopt[{_EXTRAS[root]}]"'
    return f"pip install {_PACKAGES.get(root, root)}"


def is_installed(module: str) -> bool:
    """Whether the package of a module is there, told without importing it."""
    return importlib.util.find_spec(module.split(".")[0]) is not None


def missing(purposes: Mapping[str, str]) -> list[str]:
    """One sentence for each package that is not installed: what will be left out, and how to get it.

    Say them before long work begins, not after it.

    Args:
        purposes: Module -> what needs it, as the subject of a sentence: {"sklearn": "The map of images"}.
    """
    absent = {module: purpose for module, purpose in purposes.items() if not is_installed(module)}
    return [
        f"{purpose} is left out, for lack of `{module.split('.')[0]}`: {install_command(module)}"
        for module, purpose in absent.items()
    ]


def require(module: str, purpose: str) -> ModuleType:
    """Imports a module or raises an ImportError that says what it is for and how to install it.

    Args:
        module: Dotted module name, such as "keras_tuner".
        purpose: What needs it, as the subject of a sentence: "`tfopt.tune.search`".
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        lacking = module.split(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name:
            lacking = error.name.split(".")[
                0
            ]  # keras-tuner is there, and tensorboard, which it needs, is not
        command = install_command(lacking)
        raise ImportError(f"{purpose} needs `{lacking}`. Install it with: {command}. ({error})") from error
    except Exception as error:  # a package that was compiled for another version of what it needs
        first = str(error).splitlines()[0] if str(error) else "no message"
        raise ImportError(
            f"{purpose} needs `{module}`, which fails on import: {type(error).__name__}: {first} "
            "`tfopt doctor` says what to install."
        ) from error
