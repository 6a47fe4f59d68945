"""A trained model as a SavedModel or an ONNX file, checked against the model before it has its name."""

import json
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfopt._files import replacing
from tfopt._optional import require
from tfopt.compress._ports import Portable

TOLERANCE = 1e-4  # the same arithmetic, in another order


def saved_model(model: keras.Model, target: pathlib.Path) -> pathlib.Path:
    """Writes the folder beside and renames it when it gives the outputs of the model."""
    import tensorflow as tf

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        written = pathlib.Path(folder, "model")
        model.export(written, format="tf_saved_model", verbose=False)
        loaded: Any = tf.saved_model.load(str(written))  # holds the variables that `serve` reads
        _check("SavedModel", model, lambda images: np.asarray(loaded.serve(images)))
        shutil.move(written, target)
    return target


def onnx(model: keras.Model, target: pathlib.Path, class_names: Sequence[str] | None) -> pathlib.Path:
    """Writes an ONNX file that takes float32 pixels in [0, 255], as the model does, in batches of any size.

    Args:
        model: With one input and one output.
        target: The file.
        class_names: Kept in its metadata as JSON, under "class_names".

    Raises:
        ImportError: If tf2onnx or onnxruntime is not installed.
        ValueError: If the file does not agree with the model.
    """
    import tensorflow as tf

    converter = require("tf2onnx", "An ONNX file")
    ports = Portable(model)
    pixels = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name=ports.inputs[0].name)
    function = tf.function(lambda images: model(images, training=False), input_signature=[pixels])
    content, _ = converter.convert.from_function(function, input_signature=[pixels])
    _name_output(content.graph, ports.outputs[0].name)
    if class_names is not None:
        entry = content.metadata_props.add()
        entry.key, entry.value = "class_names", json.dumps(list(class_names))
    _check("ONNX file", model, _running(content.SerializeToString()))
    with replacing(target) as partial:
        partial.write_bytes(content.SerializeToString())
    return target


def _name_output(graph: Any, name: str) -> None:
    """Gives the output of a graph the name that it has in the model, instead of "Identity:0"."""
    (output,) = graph.output
    for node in graph.node:
        for place, found in enumerate(node.output):
            if found == output.name:
                node.output[place] = name
        for place, found in enumerate(node.input):
            if found == output.name:
                node.input[place] = name
    output.name = name


def _running(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """Runs an ONNX file."""
    session = require("onnxruntime", "The check of an ONNX file").InferenceSession(content)
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _check(kind: str, model: keras.Model, run: Callable[[np.ndarray], np.ndarray]) -> None:
    images = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:])).astype("float32")
    expected = np.asarray(model(images))
    difference = float(np.abs(run(images) - expected).max())
    if not difference < TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ValueError(f"The {kind} does not agree with the model: outputs differ by {difference:g}.")
