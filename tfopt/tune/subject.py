"""What is measured: a model and data, written where another process can read them."""

import functools
import hashlib
import json
import pathlib
import pickle
import re
import tempfile
from collections.abc import Callable
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from tfopt._checks import message
from tfopt.distribute.spawning import _reference
from tfopt.tune.journal import as_json

_EXAMPLES = 64


@final
class Subject:
    """A model and data in a file, which is gone at the end of a `with` statement.

    Args:
        model: A compiled Functional or Sequential model; or a function at the top level
            of a module (or a `functools.partial` of one) that returns a compiled model of any kind.
        data: One of

            - such a function, (batch size) -> a batched `tf.data.Dataset`: its work is measured too;
            - arrays (x, y) or a batched `tf.data.Dataset`: some examples are taken, and the step is measured;
            - None: random numbers. The model must have one input, one output and one loss.

    Raises:
        ValueError: If the model is not compiled or its shapes are unknown.
    """

    def __init__(self, model: keras.Model | Callable[[], keras.Model], data: Any) -> None:
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self._temporary.name)
        what: dict[str, Any] = {"architecture": None, "model": None, "data": None, "examples": None}
        if isinstance(model, keras.Model):
            if not model.compiled:
                fix = "Call model.compile(...) as for training: the optimizer needs time and memory too."
                raise ValueError(message("model", "compiled", model.name, fix))
            what["architecture"] = architecture = model.to_json()  # speed does not depend on the weights
        else:
            what["model"] = architecture = _portable(model)
        if callable(data):
            what["data"] = source = _portable(data)
        else:
            what["examples"] = _examples(model, data)
            source = tf.nest.map_structure(
                lambda array: [array.dtype.name, *array.shape[1:]], what["examples"]
            )
        (self.folder / "subject").write_bytes(pickle.dumps(what))
        text = json.dumps(as_json([architecture, source]), sort_keys=True)
        text = re.sub(r'_\d+(?=\\*")', "", text)  # dense_1 and dense_2 are the same model built twice
        self.signature = hashlib.sha256(text.encode()).hexdigest()

    def __enter__(self) -> "Subject":
        return self

    def __exit__(self, *_: Any) -> None:
        self._temporary.cleanup()


def _portable(function: Any) -> dict[str, Any]:
    """A function and its bound arguments in a form that another process can find and call."""
    if isinstance(function, functools.partial):
        inner = _portable(function.func)
        return {**inner, "args": function.args, "kwargs": function.keywords}
    return {"function": _reference(function), "args": (), "kwargs": {}}


def _examples(model: Any, data: Any) -> Any:
    """(x, y) as arrays with a first axis of examples."""
    if data is None:
        return _random(model)
    if isinstance(data, tf.data.Dataset):
        return next(data.unbatch().batch(_EXAMPLES).take(1).as_numpy_iterator())
    return tf.nest.map_structure(lambda array: np.asarray(array[:_EXAMPLES]), tuple(data))


def _random(model: Any) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, and targets of the shape that the loss takes."""
    shapes = [model.input_shape, model.output_shape] if isinstance(model, keras.Model) else [()]
    sizes = [size for shape in shapes for size in shape[1:]]
    if not sizes or not all(isinstance(size, int) for size in sizes):
        fix = "It can be left out for a model with one input and one output of known shapes."
        raise ValueError(message("data", "given", None, fix))
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 255, (_EXAMPLES, *shapes[0][1:])).astype(model.inputs[0].dtype)
    labels = generator.integers(0, sizes[-1], (_EXAMPLES, *shapes[1][1:-1]))
    sparse = "sparse" in str(model.get_compile_config()["loss"]).lower()
    return x, labels if sparse else np.eye(int(sizes[-1]), dtype="float32")[labels]
