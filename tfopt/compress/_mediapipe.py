"""Metadata by which MediaPipe Tasks and ML Kit read a classifier's labels and the form of its image.

The entry TFLITE_METADATA is a FlatBuffer of its own. Its schema, which no package that we need brings, is
metadata_schema.fbs of tflite-support; the numbers below are the places of fields in its tables.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flatbuffers

from tfopt.compress._flatbuffer import schema, with_metadata
from tfopt.compress._labels import LABELS
from tfopt.compress._matching import Port

NAME = "TFLITE_METADATA"
_IDENTIFIER, _PARSER = b"M001", "1.2.0"
_IMAGE, _RGB, _NORMALIZATION, _AXIS_LABELS = 2, 1, 1, 2  # members of the schema's unions and enumerations


def for_tasks(
    content: bytes, inputs: Sequence[Port], outputs: Sequence[Port], input_type: str, class_names: Any
) -> bytes:
    """The file with that metadata if it is a classifier of images with labels, else as it is.

    Args:
        content: A .tflite file.
        inputs: Its inputs.
        outputs: Its outputs.
        input_type: What the first input takes; MediaPipe knows "uint8" and "float32".
        class_names: The labels, as in `export`.
    """
    ports = [*inputs, *outputs]
    if len(ports) != 2 or class_names is None or isinstance(class_names, Mapping) or input_type == "int8":
        return content
    image, scores = ports
    if len(image.shape) != 3 or image.shape[-1] != 3 or len(scores.shape) != 1 or scores.shape[0] == 1:
        return content
    entry = classifier_metadata(image, input_type == "float32", scores, LABELS)
    return with_metadata(schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0)), {NAME: entry})


def classifier_metadata(image: Port, is_float: bool, scores: Port, labels: str) -> bytes:
    """The entry for a model from one image of pixels in [0, 255] to one score for each class.

    Args:
        image: The input.
        is_float: Whether the file takes float pixels; MediaPipe then asks how to normalize them.
        scores: The output.
        labels: Name of the labels' file in the archive at the end of the model.
    """
    builder = flatbuffers.Builder(1024)
    normalization = []
    if is_float:  # the model does it itself: (pixel - 0) / 1
        mean, deviation = _floats(builder, [0.0]), _floats(builder, [1.0])
        options = _table(builder, 2, {0: mean, 1: deviation})
        normalization = [_union(builder, _NORMALIZATION, options)]
    properties = _table(builder, 2, {}, {0: _RGB})
    content = _union(builder, _IMAGE, properties)
    stats = _table(builder, 2, {0: _floats(builder, [255.0]), 1: _floats(builder, [0.0])})
    units = _offsets(builder, normalization)
    source = _table(builder, 7, {0: builder.CreateString(image.name), 3: content, 4: units, 5: stats})
    file = _table(builder, 5, {0: builder.CreateString(labels)}, {2: _AXIS_LABELS})
    files = _offsets(builder, [file])
    target = _table(builder, 7, {0: builder.CreateString(scores.name), 6: files})
    graph = _table(builder, 4, {2: _offsets(builder, [source]), 3: _offsets(builder, [target])})
    graphs = _offsets(builder, [graph])
    parser = builder.CreateString(_PARSER)
    root = _table(builder, 8, {0: builder.CreateString(image.name), 3: graphs, 7: parser})
    builder.Finish(root, _IDENTIFIER)
    return bytes(builder.Output())


def _table(
    builder: Any, fields: int, offsets: dict[int, int], enumerations: dict[int, int] | None = None
) -> int:
    builder.StartObject(fields)
    for place, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(place, offset, 0)
    for place, value in (enumerations or {}).items():
        builder.PrependInt8Slot(place, value, 0)
    return int(builder.EndObject())


def _union(builder: Any, kind: int, value: int) -> int:
    """A table that holds nothing but a union: its type in the first place, the value in the second."""
    return _table(builder, 2, {1: value}, {0: kind})


def _vector(builder: Any, values: Sequence[Any], prepend: Callable[[Any], None]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        prepend(value)
    return int(builder.EndVector())


def _offsets(builder: Any, values: Sequence[int]) -> int:
    return _vector(builder, values, builder.PrependUOffsetTRelative)


def _floats(builder: Any, values: Sequence[float]) -> int:
    return _vector(builder, values, builder.PrependFloat32)
