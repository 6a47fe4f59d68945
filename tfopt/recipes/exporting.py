"""`export`: another file of a finished run, without training again."""

import json
import logging
import pathlib
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfopt import compress, data
from tfopt._checks import check_choice, message
from tfopt.compress._input_scale import scales_itself
from tfopt.compress.exporting import QUANTIZATIONS
from tfopt.models import load
from tfopt.recipes.run_folder import store_task
from tfopt.recipes.sampling import sampled
from tfopt.recipes.stored_task import stored_task

_logger = logging.getLogger(__name__)

FORMATS = ("tflite", "saved_model")
_CALIBRATION = 512  # images, of which `compress.export` takes what it needs
_TOLERANCE = 1e-4  # of a SavedModel: the same arithmetic, in another order


def export(
    path: str | pathlib.Path,
    output: str | pathlib.Path | None = None,
    *,
    quantization: str | None = "float16",
    file_format: str = "tflite",
    source: Any = None,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
) -> pathlib.Path:
    """Exports the model of a run in another form, and checks what it wrote against the model.

    Args:
        path: The output folder of `finetune` or `compress`, or a model file.
        output: Where to write. None: beside the model, as `model-float16.tflite` or `model-saved_model/`.
        quantization: "float16", "dynamic", "int8", "int16x8" or None: float32. For "int8" of a run that was
            trained with quantization, that model is taken.
        file_format: "tflite", or "saved_model" for TensorFlow Serving and converters: float32.
        source: Images to calibrate int8 and int16x8 with, as `tfopt.data.load` takes them. None: those of
            the run.
        seed: Of the choice of these images.
        class_names: Names of the outputs. None: those that the model holds.

    Returns:
        The path of what was written.

    Raises:
        FileNotFoundError: If there is no run or model.
        FileExistsError: If `output` exists already.
        ValueError: If a value is none of those above, images are needed and missing, or the file does not
            agree with the model.

    Example:
        >>> from tfopt.recipes import export
        >>> export("runs/photos", quantization="float16")
        PosixPath('runs/photos/model-float16.tflite')
    """
    check_choice("quantization", quantization, QUANTIZATIONS)
    check_choice("file_format", file_format, FORMATS)
    file, folder = _model_of(pathlib.Path(path).expanduser())
    saved_model = file_format == "saved_model"
    name = file_format if saved_model else quantization or "float32"
    ending = "" if saved_model else ".tflite"
    target = pathlib.Path(output).expanduser() if output else file.with_name(f"{file.stem}-{name}{ending}")
    if target.exists():
        raise FileExistsError(message("output", "a path at which nothing is", str(target)))
    if saved_model:
        return _saved_model(load(file), target)
    trained = folder / "stages" / "quantization.keras" if folder else None
    if quantization == "int8" and trained is not None and trained.is_file():
        model, images = load(trained), None
    else:
        model = load(file)
        needed = quantization in ("int8", "int16x8")
        images = _images(_source(source, folder), model, seed) if needed else None
    task = stored_task(file)
    if task is None and not scales_itself(model):
        _logger.warning(
            "%s has no preprocessing inside, and its pixels are taken in [0, 255]. If it was trained on "
            "another scale, `tfopt compress` finds it and puts it into the file.",
            file.name,
        )
    names = class_names or (None if task is None else task.names)
    compress.export(model, target, quantization, representative_data=images, class_names=names)
    if task is not None:
        store_task(target, task)
    return target


def _model_of(run: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path | None]:
    """The float model, and the folder of its run if there is one."""
    if run.is_dir() and (run / "model.keras").is_file():
        return run / "model.keras", run
    if run.is_file():
        return run, run.parent if (run.parent / "run.json").is_file() else None
    expected = "a model file, or the folder of a run with model.keras"
    raise FileNotFoundError(message("path", expected, str(run)))


def _source(source: Any, folder: pathlib.Path | None) -> Any:
    """The images given, or those that the run was made from."""
    if source is not None:
        return source
    if folder is not None and (folder / "config.json").is_file():
        found = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("data")
        if found and not found.startswith("arrays"):
            return found
    raise ValueError("int8 and int16x8 need images to find the ranges of activations: give `source`.")


def _images(source: Any, model: keras.Model, seed: int) -> Any:
    """Batches of training images at the size of the model, all classes among them."""
    images = data.load(source, seed=seed)
    size = tuple(model.input_shape[1:3])
    chosen = sampled(images.train, _CALIBRATION, seed)
    return data.pipeline(chosen, 32, image_size=size, shuffle=False).map(lambda pixels, *_: pixels)


def _saved_model(model: keras.Model, target: pathlib.Path) -> pathlib.Path:
    """Writes the folder beside and renames it when it gives the outputs of the model."""
    import tensorflow as tf

    target.parent.mkdir(parents=True, exist_ok=True)
    sample = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:])).astype("float32")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        written = pathlib.Path(folder, "model")
        model.export(written, format="tf_saved_model", verbose=False)
        loaded: Any = tf.saved_model.load(str(written))  # holds the variables that `serve` reads
        expected = np.asarray(model(sample))
        difference = float(np.abs(np.asarray(loaded.serve(sample)) - expected).max())
        if not difference < _TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise ValueError(
                f"The SavedModel does not agree with the model: outputs differ by {difference:g}."
            )
        shutil.move(written, target)
    return target
