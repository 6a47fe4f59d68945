"""A Keras model or a file, behind the same names: what `compare` measures."""

import time
from collections.abc import Callable
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from tfopt._keras_internals import functional, nodes
from tfopt.compress._data import pairs
from tfopt.compress._judging import Judged, judged
from tfopt.compress._matching import Port, matched
from tfopt.compress._ports import Portable
from tfopt.compress.tflite_model import TFLiteModel


@final
class Subject:
    """One model of a comparison.

    Args:
        model: A `keras.Model`, a `TFLiteModel`, or the path of a .tflite file.

    Attributes:
        content: The bytes that its size is counted by.
        engine: What runs it.
    """

    def __init__(self, model: Any) -> None:
        self.file: TFLiteModel | None = None
        if isinstance(model, keras.Model):
            self.content = b"".join(np.asarray(value).tobytes() for value in model.get_weights())
            self.inputs, self.outputs = _keras_ports(model)
            self._function = tf.function(
                lambda x: keras.tree.flatten(model(x, training=False)), reduce_retracing=True
            )
            self._model = model
            self.engine = "Keras"
        else:
            self.file = model if isinstance(model, TFLiteModel) else TFLiteModel(model)
            self.content = self.file.content
            self.inputs, self.outputs = self.file.inputs, self.file.outputs
            self.engine = self.file.engine

    def judged(self, data: Any, task: Any) -> list[Judged]:
        """The outputs and their labels."""
        if not self.outputs:  # a subclassed model does not say how many it has
            sample, _ = next(iter(pairs(data)))
            count = len(self._predict(sample))
            self.outputs = [Port(f"output_{i}", (), "float32") for i in range(count)]
        return judged(self._predict, data, self.inputs, self.outputs, task)

    def runner(self, batch: Any) -> Callable[[], float]:
        """Runs the first sample of a batch and returns the seconds it took."""
        sample = keras.tree.map_structure(lambda array: array[:1], batch)
        if self.file is not None:
            return self.file.runner(matched(sample, self.inputs))
        value = self._tensors(sample)

        def run() -> float:
            start = time.perf_counter()
            for output in self._function(value):
                np.asarray(output)
            return time.perf_counter() - start

        return run

    def _predict(self, batch: Any) -> list[np.ndarray]:
        if self.file is not None:
            return self.file.predict_batch(batch)
        return [np.asarray(output) for output in self._function(self._tensors(batch))]

    def _tensors(self, batch: Any) -> Any:
        """The batch as the model takes it: bytes are pixels, and a known model's inputs go by name."""
        if self.inputs:
            arrays = matched(batch, self.inputs)
            if arrays is not None:
                return keras.tree.pack_sequence_as(
                    functional(self._model).input, list(map(tf.constant, arrays))
                )
        return keras.tree.map_structure(
            lambda x: tf.constant(x, None if x.dtype in (np.int32, np.int64) else tf.float32), batch
        )


def _keras_ports(model: keras.Model) -> tuple[list[Port], list[Port]]:
    if not nodes(model):
        return [], []
    portable = Portable(model)
    return portable.inputs, portable.outputs
