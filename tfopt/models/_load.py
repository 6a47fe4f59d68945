"""load: a model out of any file that Keras wrote, of whatever version and under whatever name."""

import contextlib
import json
import logging
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from tfopt._optional import require
from tfopt.models._keras2 import plain, rebuilt
from tfopt.models._keras2_layers import Notes
from tfopt.models._keras2_weights import from_archive, from_checkpoint, from_hdf5
from tfopt.models._saved_model import checkpoint, model_config

_HDF5, _ZIP = b"\x89HDF", b"PK"
_NAMED = 3
_logger = logging.getLogger(__name__)


def load(path: str | pathlib.Path, custom_objects: Mapping[str, Any] | None = None) -> keras.Model:
    """Opens a Keras model, whichever Keras wrote it, and says what it changed.

    It takes `.keras` files of Keras 3 and of Keras 2 (tf_keras), HDF5 files under any name (Teachable
    Machine's `keras_model.h5`, those of old tutorials), and folders that Keras 2 saved as SavedModel. What
    the file is shows in its content, not in its name. A model of Keras 2 is rebuilt from Keras 3's layers,
    with the same layer names, weights and outputs; a warning lists what was changed.

    No code of the file runs: Lambda layers are refused by name, classes that are not Keras's must be given or
    registered.

    Args:
        path: The file or folder.
        custom_objects: Your own classes and functions in it, by name.

    Returns:
        The model, not compiled.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        ValueError: If it holds no Keras model, is damaged, or has layers that cannot be loaded.

    Example:
        >>> model = tfopt.models.load("keras_model.h5")
        >>> tfopt.compress.export(model, "model.tflite")
    """
    path, own = pathlib.Path(path).expanduser(), dict(custom_objects or {})
    if not path.exists():
        raise FileNotFoundError(f"`path` must be a model file. Received: path={str(path)!r}.")
    try:
        if path.is_dir():
            return _from_folder(path, own)
        with path.open("rb") as file:
            start = file.read(8)
        if start.startswith(_HDF5):
            return _from_hdf5(path, own)
        if start.startswith(_ZIP):
            return _from_archive(path, own)
    except (OSError, KeyError, TypeError, AttributeError, IndexError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"`path` must be a complete Keras model. Received: {str(path)!r}, which is damaged or of an "
            f"unknown form: {type(error).__name__}: {_first_line(error)}"
        ) from error
    kind = "a .tflite file: open it with `tfopt.compress.TFLiteModel`" if start[4:] == b"TFL3" else "no model"
    raise ValueError(
        "`path` must be a .keras or HDF5 (.h5) file or a SavedModel folder of Keras 2. Received: "
        f"{str(path)!r}, which is {kind}."
    )


def _from_hdf5(path: pathlib.Path, own: Mapping[str, Any]) -> keras.Model:
    h5py: Any = require("h5py", "Reading HDF5 files")
    with h5py.File(path, "r") as file:
        text = file.attrs.get("model_config")
        if text is None:
            raise ValueError(
                f"`path` must be a whole model. Received: {str(path)!r}, which holds weights only. Build "
                f"the model by its own code, then `model.load_weights({str(path)!r})`."
            )
        config = plain(json.loads(text))
        _refuse_lambdas(config, path)
        version = _text(
            file.attrs.get("keras_version", file["model_weights"].attrs.get("keras_version", "2"))
        )
        if version.startswith("3"):
            with _named(path, ".h5") as link:
                return _by_keras(link, own)
        notes: Notes = {}
        model = rebuilt(config, own, notes)
        from_hdf5(model, file["model_weights"])
    return _told(model, path, version, notes)


def _from_archive(path: pathlib.Path, own: Mapping[str, Any]) -> keras.Model:
    h5py: Any = require("h5py", "Reading HDF5 files")
    with zipfile.ZipFile(path) as archive:
        if "config.json" not in archive.namelist():
            raise ValueError(f"`path` must be a .keras file. Received: {str(path)!r}, another zip archive.")
        config, about = (plain(json.loads(archive.read(name))) for name in ("config.json", "metadata.json"))
        _refuse_lambdas(config, path)
        if about.get("keras_version", "3").startswith("3"):
            with _named(path, ".keras") as link:
                return _by_keras(link, own)
        notes: Notes = {}
        model = rebuilt(config, own, notes)
        with archive.open("model.weights.h5") as content, h5py.File(content, "r") as file:
            from_archive(model, file)
    return _told(model, path, about["keras_version"], notes)


def _from_folder(path: pathlib.Path, own: Mapping[str, Any]) -> keras.Model:
    config = plain(model_config(path))
    _refuse_lambdas(config, path)
    notes: Notes = {}
    model = rebuilt(config, own, notes)
    from_checkpoint(model, checkpoint(path))
    return _told(model, path, "2", notes)


def _by_keras(path: pathlib.Path, own: Mapping[str, Any]) -> keras.Model:
    return keras.models.load_model(path, custom_objects=own, compile=False)


@contextlib.contextmanager
def _named(path: pathlib.Path, suffix: str) -> Iterator[pathlib.Path]:
    """The file under a name with the suffix by which Keras tells its formats apart."""
    if path.suffix == suffix:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder, path.stem + suffix)
        shutil.copyfile(path, copy)
        yield copy


def _refuse_lambdas(config: Any, path: pathlib.Path) -> None:
    """Refuses Python code in a configuration."""
    found, waiting = [], [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
            inside = value.get("config")
            if value.get("class_name") == "Lambda" and not _is_registered(inside):
                found.append((inside or {}).get("name", "lambda"))
            elif value.get("class_name") == "__lambda__":
                found.append("__lambda__")
        elif isinstance(value, list):
            waiting += value
    if found:
        raise ValueError(
            f"{str(path)!r} holds Python code, in Lambda layers {sorted(set(found))[:_NAMED]}, and is not "
            "loaded: code in a file can do anything. Build the model by its own code, with "
            "`keras.ops` in place of the Lambda, then `model.load_weights(path)`."
        )


def _is_registered(config: Any) -> bool:
    """Whether a Lambda layer calls a function that is registered here, by its name."""
    function = config.get("function") if isinstance(config, dict) else None
    if not isinstance(function, dict) or function.get("class_name") != "function":
        return False
    return keras.saving.get_registered_object(function.get("registered_name") or "") is not None


def _told(model: keras.Model, path: pathlib.Path, version: str, notes: Notes) -> keras.Model:
    changes = [f"{change} in {_list(layers)}" for change, layers in notes.items()]
    _logger.warning(
        "%s was written by Keras %s and is rebuilt for Keras %s%s.",
        path.name,
        version,
        keras.__version__,
        "".join(f"; {change}" for change in changes),
    )
    return model


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes | np.bytes_) else str(value)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else ""
