"""The distributions that bring TensorFlow and Keras: several names for one package, and their plug-ins."""

import ctypes.util
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from typing import Literal

from tfopt.doctor.finding import Finding

# Other distributions of the same package. Those of TensorFlow all write the folder `tensorflow`.
ALTERNATIVES = {
    "tensorflow": (
        "tensorflow",
        "tensorflow-cpu",
        "tensorflow-intel",
        "tensorflow-macos",
        "tf-nightly",
        "tf-nightly-cpu",
    ),
    "keras": ("keras", "keras-nightly"),
    "tf_keras": ("tf_keras", "tf_keras-nightly"),
}
_NIGHTLY = "nightly"
_CUDA = ("nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
# On Windows `tensorflow` consisted of `tensorflow-intel` alone, up to 2.18.
_COMPANIONS = {("tensorflow", "tensorflow-intel")}


def installed(name: str, version: Callable[[str], str]) -> dict[str, str]:
    """Distribution -> version of all that bring a package.

    Args:
        name: The distribution that tfopt asks for.
        version: `importlib.metadata.version`.
    """
    found = {}
    for distribution in ALTERNATIVES.get(name, (name,)):
        try:
            found[distribution] = version(distribution)
        except PackageNotFoundError:
            continue
    return found


def conflict(name: str, found: dict[str, str], install: str) -> Finding | None:
    """What is wrong where several distributions bring one package: files of each, in one folder.

    Args:
        name: The distribution that tfopt asks for.
        found: What `installed` found.
        install: The command that installs it.
    """
    names = tuple(sorted(found))
    if len(names) < 2 or names in _COMPANIONS:
        return None
    detail = f"{' and '.join(f'{key} {value}' for key, value in found.items())} write the same files"
    return Finding(name, "broken", detail, f"pip uninstall {' '.join(names)}; {install}")


def status(distribution: str, wanted: bool) -> tuple[Literal["ok", "warning", "broken"], str]:
    """How good a distribution of some version is, and what to say of it.

    Args:
        distribution: Its name.
        wanted: Whether its version is in the range that tfopt asks for.
    """
    if _NIGHTLY in distribution:
        return "warning", f" ({distribution}: untested, it changes every day)"
    return ("ok" if wanted else "broken"), f" ({distribution})"


def plugins(version: Callable[[str], str]) -> Iterator[Finding]:
    """What is installed beside TensorFlow and may not fit it: plug-ins, and CUDA without a driver."""
    metal = installed("tensorflow-metal", version).get("tensorflow-metal")
    if metal is not None:
        detail = f"{metal}: Apple's GPU plug-in, made for TensorFlow 2.18; with others it may fail on import"
        yield Finding("tensorflow-metal", "warning", detail, "pip uninstall tensorflow-metal")
    if any(installed(name, version) for name in _CUDA) and ctypes.util.find_library("cuda") is None:
        detail = (
            "CUDA libraries are installed, but there is no NVIDIA driver (libcuda): TensorFlow uses the CPU"
        )
        fix = (
            "install the driver, or start the container with --gpus all; without a GPU nothing is to be done"
        )
        yield Finding("CUDA", "warning", detail, fix)
