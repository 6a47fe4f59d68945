"""SavedModel folders of Keras 2: configuration and variables of a model, without running its graph."""

import functools
import json
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# Other ways to the same layers and variables, and what is no layer.
_LISTS = re.compile(
    r"layer-\d+|layers|variables|.*trainable_variables|.*losses|keras_api|signatures|.*fn|\d+"
)


def model_config(path: pathlib.Path) -> dict[str, Any]:
    """The "class_name" and "config" of the model.

    Raises:
        ValueError: If the folder is no SavedModel, or does not tell the layers of its model.
    """
    if not (path / "saved_model.pb").is_file():
        raise ValueError(f"`path` must be a SavedModel or a model file. Received: the folder {str(path)!r}.")
    metadata = path / "keras_metadata.pb"
    root = next((text for node, text in _nodes(metadata) if node == 0), "") if metadata.is_file() else ""
    entry = json.loads(root) if root else {}
    if not entry.get("model_config"):
        raise ValueError(
            f"{str(path)!r} is a SavedModel that does not tell its layers: only its compiled graph is left. "
            "Convert it as it is (`tf.lite.TFLiteConverter.from_saved_model`) and open the file with "
            "`tfopt.compress.TFLiteModel`, or save the model again as `.keras`."
        )
    return dict(entry["model_config"])


def checkpoint(path: pathlib.Path) -> dict[str, Callable[[], np.ndarray]]:
    """Readers of the model's variables by the attributes that lead to them: "layer_with_weights-0/kernel"."""
    import tensorflow as tf
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    graph = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    return {name: functools.partial(reader.get_tensor, key) for name, key in _variables(graph.nodes)}


def _variables(nodes: Any) -> Iterator[tuple[str, str]]:
    """Path and key in the checkpoint of each variable; layers are numbered among those with weights."""
    waiting: list[tuple[int, tuple[str, ...]]] = [(0, ())]
    while waiting:
        number, path = waiting.pop()
        for attribute in nodes[number].attributes:
            if attribute.name == "VARIABLE_VALUE":
                yield "/".join(path), attribute.checkpoint_key
        for child in nodes[number].children:
            is_layer = child.local_name.startswith("layer_with_weights-")
            if is_layer or (path and not _LISTS.match(child.local_name)):
                waiting.append((child.node_id, (*path, child.local_name)))


def _nodes(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Number and metadata of each node in `keras_metadata.pb`.

    Its message is SavedMetadata of tf_keras/protobuf/saved_metadata.proto: field 1 of it are nodes, whose
    fields 2 and 5 are the number (absent for 0) and the JSON text.
    """
    for number, content in _fields(path.read_bytes()):
        if number == 1 and isinstance(content, bytes):
            fields = dict(_fields(content))
            text = fields.get(5, b"")
            yield int(fields.get(2, 0)), text.decode() if isinstance(text, bytes) else ""


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protocol buffer message (wire types 0, 1, 2 and 5)."""
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(content, place)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind, 0)
        if kind == 2:
            size, place = _varint(content, place)
        yield key >> 3, content[place : place + size]
        place += size


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
