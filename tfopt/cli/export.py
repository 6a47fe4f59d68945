"""`tfopt export`: another file of a finished run, without training again."""

import argparse
import typing
from typing import Any

from tfopt.cli._arguments import DATA_HELP, add_class_names
from tfopt.recipes.config import Quantization


def add(commands: Any) -> argparse.ArgumentParser:
    """The command's flags and help."""
    command = commands.add_parser(
        "export",
        help="a finished run in; another file out, without training again",
        description="Writes the model of a run in another form and checks it against the model.",
        epilog="Examples: tfopt export runs/photos --quantization float16; "
        "tfopt export runs/photos --file-format saved_model",
    )
    command.add_argument("path", metavar="RUN", help="folder of a run, or a .keras or .h5 file")
    form = command.add_argument_group("form")
    form.add_argument(
        "--quantization",
        default="float16",
        choices=(*typing.get_args(Quantization), "none"),
        help="number format of a .tflite file; int8 takes the model that was trained for it, where the run "
        "has one. Default: float16.",
    )
    form.add_argument(
        "--file-format",
        default="tflite",
        choices=("tflite", "saved_model", "onnx"),
        help="saved_model is a folder for TensorFlow Serving, onnx a file for ONNX Runtime "
        "(pip install 'tfopt[onnx]'); both are float32. Default: tflite.",
    )
    add_class_names(form)
    images = command.add_argument_group("images")
    images.add_argument(
        "--data",
        dest="source",
        metavar="DATA",
        help=f"images for the ranges of int8 and int16x8: {DATA_HELP}. Default: those of the run.",
    )
    results = command.add_argument_group("results")
    results.add_argument(
        "--output", metavar="PATH", help="where to write. Default: beside the model, model-float16.tflite."
    )
    command.set_defaults(run=run)
    return command


def run(parsed: argparse.Namespace) -> int:
    """Writes the file and prints where."""
    from tfopt.recipes.exporting import export

    quantization = None if parsed.quantization == "none" else parsed.quantization
    names = ("file_format", "source", "class_names")
    options = {name: getattr(parsed, name) for name in names}
    print(export(parsed.path, parsed.output, quantization=quantization, **options))
    return 0
