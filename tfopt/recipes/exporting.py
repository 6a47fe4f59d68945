"""`export`: another file of a finished run, without training again."""

import json
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import keras

from tfopt import compress, data
from tfopt._checks import check_choice, message
from tfopt.compress._input_scale import scales_itself
from tfopt.compress.exporting import QUANTIZATIONS
from tfopt.models import load
from tfopt.recipes import other_formats
from tfopt.recipes.run_folder import store_task
from tfopt.recipes.sampling import sampled
from tfopt.recipes.stored_task import stored_task

_logger = logging.getLogger(__name__)

FORMATS = ("tflite", "saved_model", "onnx")
_CALIBRATION = 512  # images, of which `compress.export` takes what it needs


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
        output: Where to write. None: beside the model, as `model-float16.tflite`, `model-saved_model/` or
            `model.onnx`.
        quantization: "float16", "dynamic", "int8", "int16x8" or None: float32. For "int8" of a run that was
            trained with quantization, that model is taken.
        file_format: "tflite"; "saved_model" for TensorFlow Serving and converters; or "onnx" for ONNX
            Runtime and others (with `tfopt[onnx]`). The last two are float32.
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
    beside = {"saved_model": f"{file.stem}-saved_model", "onnx": f"{file.stem}.onnx"}
    name = beside.get(file_format, f"{file.stem}-{quantization or 'float32'}.tflite")
    target = pathlib.Path(output).expanduser() if output else file.with_name(name)
    if target.exists():
        raise FileExistsError(message("output", "a path at which nothing is", str(target)))
    task = stored_task(file)
    names = class_names or (None if task is None else task.names)
    if file_format == "saved_model":
        return other_formats.saved_model(load(file), target)
    if file_format == "onnx":
        return other_formats.onnx(load(file), target, names)
    trained = folder / "stages" / "quantization.keras" if folder else None
    if quantization == "int8" and trained is not None and trained.is_file():
        model, images = load(trained), None
    else:
        model = load(file)
        needed = quantization in ("int8", "int16x8")
        images = _images(_source(source, folder), model, seed) if needed else None
    if task is None and not scales_itself(model):
        _logger.warning(
            "%s has no preprocessing inside, and its pixels are taken in [0, 255]. If it was trained on "
            "another scale, `tfopt compress` finds it and puts it into the file.",
            file.name,
        )
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
        try:
            found = json.loads((folder / "config.json").read_text(encoding="utf-8"))["data"]
        except (ValueError, KeyError, TypeError):  # damaged: the images have to be given
            found = None
        if isinstance(found, str) and found and not found.startswith("arrays"):
            return found
    raise ValueError("int8 and int16x8 need images to find the ranges of activations: give `source`.")


def _images(source: Any, model: keras.Model, seed: int) -> Any:
    """Batches of training images at the size of the model, all classes among them."""
    images = data.load(source, seed=seed)
    size = tuple(model.input_shape[1:3])
    chosen = sampled(images.train, _CALIBRATION, seed)
    return data.pipeline(chosen, 32, image_size=size, shuffle=False).map(lambda pixels, *_: pixels)
