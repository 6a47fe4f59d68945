"""The named inputs and outputs of a model, and the model as a function from arrays to arrays."""

import os
from typing import Any, final

import keras
import numpy as np

from tfopt._checks import message
from tfopt._keras_internals import functional, nodes
from tfopt.compress._matching import Port


@final
class Portable:
    """A Functional or Sequential model whose inputs and outputs are lists in a known order.

    Args:
        model: A model with symbolic inputs; see `with_symbolic_inputs`.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        graph = functional(model)
        self.inputs = _ports(graph.input, [tensor.name for tensor in graph.inputs])
        self.outputs = _ports(graph.output, list(graph.output_names))
        self.input_structure, self.output_structure = graph.input, graph.output

    def like(self, model: keras.Model) -> "Portable":
        """Another model under the names of this one's inputs and outputs."""
        other = Portable(model)
        other.inputs, other.outputs = self.inputs, self.outputs
        return other

    @property
    def returns_dict(self) -> bool:
        """Whether the model gives its outputs in a dictionary."""
        return isinstance(self.output_structure, dict)

    def __call__(self, values: list[Any], training: bool = False) -> list[Any]:
        """The outputs for a batch of inputs."""
        packed = keras.tree.pack_sequence_as(self.input_structure, list(values))
        return keras.tree.flatten(self.model(packed, training=training))

    def predict(self, arrays: list[np.ndarray], batch: int = 32) -> list[np.ndarray]:
        """The outputs for any number of samples, in float32 where they are numbers with fractions."""
        count = len(arrays[0])
        parts = [self([array[start : start + batch] for array in arrays]) for start in range(0, count, batch)]
        return [np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(len(self.outputs))]


def with_symbolic_inputs(model: keras.Model, arrays: list[np.ndarray] | None = None) -> keras.Model:
    """The model itself, or a Functional model around a subclassed one.

    A subclassed model has no symbolic inputs. They come from the given arrays, else from the shapes with
    which the model was built.

    Raises:
        ValueError: If the model is not built and no data shows its inputs, or cannot be traced.
    """
    if nodes(model):
        return model
    shapes = None if arrays is not None else _built_shapes(model)
    if arrays is None and shapes is None:
        raise ValueError(
            f"`model` must be built. Received: {model.name!r} of type {type(model).__name__}, "
            f"built={model.built}. Call it on a batch of data first, or give `representative_data`."
        )
    if arrays is not None:
        inputs = [keras.Input(array.shape[1:], dtype=array.dtype.name) for array in arrays]
    else:
        inputs = [keras.Input(shape[1:]) for shape in shapes or []]
    try:
        outputs = model(inputs if len(inputs) > 1 else inputs[0], training=False)
        return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs, name=model.name)
    except Exception as error:
        raise ValueError(
            "`model` must be a Functional or Sequential model, or one that Keras can call on symbolic "
            f"inputs. Received: {model.name!r} of type {type(model).__name__}, which fails on "
            f"inputs of shapes {[tuple(i.shape) for i in inputs]}: {_first_line(error)} Wrap it yourself: "
            "`keras.Model(inputs, model(inputs))` with `inputs = keras.Input(...)`."
        ) from error


def check_model(model: Any) -> keras.Model:
    """A Keras 3 model, or a TypeError that says how to make one of what was given."""
    if isinstance(model, keras.Model):
        return model
    if any(kind.__module__.split(".")[0] == "tf_keras" for kind in type(model).__mro__):
        raise TypeError(
            "`model` must be a Keras 3 model. Received: a tf_keras (Keras 2) model of type "
            f"{type(model).__name__}. Convert it first: `tfopt.compress.from_tf_keras(model)`."
        )
    is_path = isinstance(model, str | os.PathLike)
    fix = "Open a file with `tfopt.models.load(path)`." if is_path else ""
    raise TypeError(message("model", "an instance of Model (Keras 3)", model, fix))


def _ports(structure: Any, names: list[str]) -> list[Port]:
    leaves = keras.tree.flatten(structure)
    if isinstance(structure, dict):
        by_id = {id(leaf): str(key) for key, value in structure.items() for leaf in keras.tree.flatten(value)}
        names = [by_id.get(id(leaf), name) for leaf, name in zip(leaves, names)]
    taken: dict[str, int] = {}
    ports = []
    for leaf, name in zip(leaves, names):
        taken[name] = count = taken.get(name, 0) + 1
        shape = tuple(None if size is None else int(size) for size in leaf.shape[1:])
        ports.append(Port(name if count == 1 else f"{name}_{count}", shape, str(leaf.dtype)))
    return ports


def _built_shapes(model: keras.Model) -> list[tuple] | None:
    """The shapes of the inputs with which a model was built, from its own build config."""
    config = (model.get_build_config() or {}) if model.built else {}
    shapes = config.get("shapes_dict") or (
        {"input": config["input_shape"]} if config.get("input_shape") else {}
    )
    found: list[tuple] = []
    for shape in shapes.values():
        rows = [shape] if not shape or isinstance(shape[0], int | type(None)) else list(shape)
        found += [tuple(row) for row in rows]
    return found or None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"
