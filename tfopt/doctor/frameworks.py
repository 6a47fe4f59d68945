"""Keras and TensorFlow: settings under which tfopt fails, and the GPUs that TensorFlow sees."""

import json
import os
import pathlib
import shutil
from collections.abc import Iterator

from tfopt.doctor.finding import Finding


def environment() -> Iterator[Finding]:
    """What the environment makes of Keras, told without importing it."""
    backend = _backend()
    if backend == "tensorflow":
        yield Finding("keras backend", "ok", backend)
    else:
        yield Finding("keras backend", "broken", backend, "export KERAS_BACKEND=tensorflow")
    if os.environ.get("TF_USE_LEGACY_KERAS", "0").lower() in ("1", "true"):
        detail = "set: `tf.keras` is Keras 2 in this process and its children, whose models Keras 3 rejects"
        yield Finding("TF_USE_LEGACY_KERAS", "warning", detail, "unset TF_USE_LEGACY_KERAS")


def keras_home() -> pathlib.Path:
    """Where Keras keeps its settings and downloads; below /tmp if it cannot write to the user's folder."""
    home = (
        pathlib.Path.home() if os.access(pathlib.Path.home(), os.W_OK) else pathlib.Path("/tmp")
    )  # as Keras
    return pathlib.Path(os.environ.get("KERAS_HOME") or home / ".keras").expanduser()


def _backend() -> str:
    """The backend that Keras takes: the variable, its file of settings, or TensorFlow."""
    try:
        settings = json.loads((keras_home() / "keras.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # Keras passes over such a file too
        settings = {}
    configured = settings.get("backend") if isinstance(settings, dict) else None
    return os.environ.get("KERAS_BACKEND") or configured or "tensorflow"


def settings() -> Iterator[Finding]:
    """Keras's own settings."""
    import keras
    import tensorflow as tf

    try:
        other = tf.keras.Model is not keras.Model
    except ImportError as error:  # TF_USE_LEGACY_KERAS asks for tf_keras, which is not there
        yield Finding("tf.keras", "broken", str(error), "unset TF_USE_LEGACY_KERAS")
    else:
        if other:
            detail = "Keras 2: tfmot came before Keras, or TF_USE_LEGACY_KERAS is set"
            yield Finding("tf.keras", "broken", detail, "import keras before tensorflow_model_optimization")
    if keras.config.image_data_format() != "channels_last":
        fix = 'set "image_data_format": "channels_last" in ~/.keras/keras.json'
        yield Finding("image_data_format", "broken", keras.config.image_data_format(), fix)
    if keras.config.floatx() != "float32":
        fix = 'set "floatx": "float32" in ~/.keras/keras.json; use a dtype policy for mixed precision'
        yield Finding("floatx", "warning", keras.config.floatx(), fix)


def gpus() -> Iterator[Finding]:
    """The GPUs, or why there may be none."""
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    for gpu in found:
        details = tf.config.experimental.get_device_details(gpu)
        capability = details.get("compute_capability", (0, 0))
        native = "native" if capability >= (8, 0) else "no native"
        yield Finding(gpu.name, "ok", f"{details.get('device_name', 'GPU')}, {native} bfloat16")
    if not found and shutil.which("nvidia-smi"):
        detail = "there is an NVIDIA driver, but TensorFlow sees no GPU"
        yield Finding("GPU", "warning", detail, 'pip install "tfopt[gpu]" and unset CUDA_VISIBLE_DEVICES')
