"""Private names of LiteRT and TensorFlow Lite that tfopt needs, with the reason.

Importing this module imports neither: a file is read without TensorFlow where LiteRT is installed.
"""

import importlib
from typing import Any

from tfopt._optional import require


def schema() -> Any:
    """The classes that read and write the flat buffer of a .tflite file; they have no public name."""
    purpose = "Reading a .tflite file"
    try:
        return require("ai_edge_litert.schema_py_generated", purpose)
    except ImportError:
        return require("tensorflow.lite.python.schema_py_generated", purpose)


def operations(interpreter: Any) -> list[dict[str, Any]]:
    """Name, inputs and outputs of each operation, in the order in which they run.

    No public call tells them.
    """
    return interpreter._get_ops_details()


def converter_error() -> type[Exception]:
    """What the converter raises, to tell its failures from mistakes of the caller; it has no public name."""
    return importlib.import_module("tensorflow.lite.python.convert_phase").ConverterError


def calibrated(converter: Any) -> bytes:
    """The float file of a converter, with the extremes of its activations in the representative data.

    The public converter goes on to integers at once, and lets nobody choose the ranges in between.
    """
    converter._experimental_calibrate_only = True
    content: bytes = converter.convert()
    return content


def in_integers(content: bytes, input_type: Any, output_type: Any) -> bytes:
    """The int8 file of what `calibrated` returns, which is the second half of the public converter."""
    converter = importlib.import_module("tensorflow.lite.python.convert")
    return converter.mlir_quantize(content, input_data_type=input_type, output_data_type=output_type)


def without_copies(content: bytes) -> bytes:
    """The file with equal constants stored once, the last step of the public converter."""
    content = importlib.import_module("tensorflow.lite.python.convert").deduplicate_readonly_buffers(content)
    return bytes(content)
