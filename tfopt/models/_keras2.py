"""Models rebuilt in Keras 3 from the configuration that Keras 2 (tf.keras, tf_keras) wrote."""

from collections.abc import Mapping
from typing import Any

import keras

from tfopt.models._keras2_layers import Notes, layer_of
from tfopt.models._keras2_operations import operation_of

MODELS = ("Sequential", "Functional", "Model")
OPERATIONS = ("TFOpLambda", "SlicingOpLambda")
_CONSTANT = "_CONSTANT_VALUE"


def rebuilt(
    entry: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None, notes: Notes | None = None
) -> keras.Model:
    """The model of a configuration, with fresh weights, the same layer names, nested models nested.

    Args:
        entry: The "class_name" and "config" of a Keras 2 model.
        custom_objects: Classes and functions of the user by name.
        notes: Takes what was changed, by the kind of change, with the names of layers.

    Raises:
        ValueError: If the model is neither Sequential nor Functional, or a layer has no counterpart.
    """
    custom_objects = custom_objects or {}
    notes = {} if notes is None else notes
    kind, config = entry["class_name"].split(">")[-1], entry["config"]
    if kind not in MODELS:
        raise ValueError(
            f"The model must be Sequential or Functional. Received: {kind!r}, whose layers the file does not "
            "tell. Build it by its own code, and load the weights: `model.load_weights(path)`."
        )
    if kind == "Sequential" and "input_layers" not in config:
        return _sequential(config, custom_objects, notes)
    return _functional(config, custom_objects, notes)


def plain(value: Any) -> Any:
    """A configuration with lists in place of the tuples and shapes that Keras 2 marked in its JSON."""
    if isinstance(value, dict):
        if value.get("class_name") in ("__tuple__", "TensorShape") and "items" in value:
            return [plain(each) for each in value["items"]]
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def _made(entry: Mapping[str, Any], custom_objects: Mapping[str, Any], notes: Notes) -> Any:
    """A layer, a nested model, or the function of an operation that was stored as a layer."""
    if entry["class_name"] in OPERATIONS:
        return operation_of(dict(entry))
    is_model = entry["class_name"] in MODELS
    return (rebuilt if is_model else layer_of)(entry, custom_objects, notes)


def _sequential(config: Any, custom_objects: Mapping[str, Any], notes: Notes) -> keras.Model:
    name, entries = (None, config) if isinstance(config, list) else (config.get("name"), config["layers"])
    shape, dtype = _first_input(entries, config)
    if shape is None:
        raise ValueError(
            f"The Sequential model {name!r} was saved without an input shape. Call it on data, then save it."
        )
    layers = [_made(each, custom_objects, notes) for each in entries if each["class_name"] != "InputLayer"]
    return keras.Sequential([keras.Input(batch_shape=shape, dtype=dtype), *layers], name=name)


def _first_input(entries: list, config: Any) -> tuple[tuple | None, str]:
    """Shape and type of a Sequential's input; its first layer or the first model in it says them."""
    first = entries[0]
    options = first["config"]
    inner = options if isinstance(options, list) else options.get("layers")
    if first["class_name"] in MODELS and inner:
        shape, dtype = _first_input(inner, options)
    else:
        given = options.get("batch_input_shape") or options.get("batch_shape")
        shape, dtype = tuple(given) if given else None, _dtype(first)
    if shape is None and isinstance(config, dict) and config.get("build_input_shape"):
        shape = tuple(config["build_input_shape"])
    return shape, dtype


def _dtype(entry: Mapping[str, Any]) -> str:
    """Data type of what the first layer takes."""
    dtype = entry["config"].get("dtype")
    if entry["class_name"] == "Embedding":
        return "int32"
    return dtype if entry["class_name"] == "InputLayer" and isinstance(dtype, str) else "float32"


def _functional(config: Mapping[str, Any], custom_objects: Mapping[str, Any], notes: Notes) -> keras.Model:
    """Repeats the calls that the configuration lists."""
    made, tensors = {}, {}
    waiting = []
    for entry in config["layers"]:
        name = entry.get("name") or entry["config"]["name"]
        if entry["class_name"] == "InputLayer":
            options = entry["config"]
            shape = options.get("batch_input_shape") or options.get("batch_shape")
            tensors[name, 0] = [keras.Input(batch_shape=tuple(shape), dtype=_dtype(entry), name=name)]
            continue
        made[name] = _made(entry, custom_objects, notes)
        first = _first_call(config, name)
        waiting += [(name, first + i, node) for i, node in enumerate(entry["inbound_nodes"])]
    while waiting:
        ready = [call for call in waiting if _references(call[2]) <= tensors.keys()]
        if not ready:
            raise ValueError(
                f"The inputs of these layers are missing in the file: {[c[0] for c in waiting]}."
            )
        for name, number, node in ready:
            tensors[name, number] = keras.tree.flatten(_called(made[name], node, tensors))
        waiting = [call for call in waiting if call not in ready]
    ends = [_ends(config[f"{side}_layers"], tensors) for side in ("input", "output")]
    return keras.Model(*ends, name=config.get("name"))


def _called(layer: Any, node: Any, tensors: Mapping[tuple, list]) -> Any:
    entries = _entries(node)
    options = {
        key: _filled(value, tensors) for key, value in (entries[0][3] if len(entries[0]) > 3 else {}).items()
    }
    values = [
        entry[2] if entry[0] == _CONSTANT else tensors[entry[0], entry[1]][entry[2]] for entry in entries
    ]
    if isinstance(layer, keras.Layer):
        options = {key: value for key, value in options.items() if value is not None}
    if isinstance(node, dict):
        return layer(dict(zip(node, values)), **options)
    return layer(values if len(values) > 1 else values[0], **options)


def _entries(node: Any) -> list:
    """[layer, call, tensor, options] of each tensor in the first argument."""
    if isinstance(node, dict):
        return list(node.values())
    return [node] if node and isinstance(node[0], str) else list(node)


def _is_reference(value: Any) -> bool:
    kinds = (str, int, int)
    return isinstance(value, list) and len(value) == 3 and all(map(isinstance, value, kinds))


def _filled(value: Any, tensors: Mapping[tuple, list]) -> Any:
    """A keyword argument with its references replaced by tensors."""
    if _is_reference(value) and (value[0], value[1]) in tensors:
        return tensors[value[0], value[1]][value[2]]
    return [_filled(each, tensors) for each in value] if isinstance(value, list) else value


def _references(node: Any) -> set[tuple[str, int]]:
    """The calls whose results a call needs, in any of its arguments."""
    needed = {(entry[0], entry[1]) for entry in _entries(node) if entry[0] != _CONSTANT}
    waiting = [value for entry in _entries(node) if len(entry) > 3 for value in entry[3].values()]
    while waiting:
        value = waiting.pop()
        if _is_reference(value):
            needed.add((value[0], value[1]))
        elif isinstance(value, list):
            waiting += value
    return needed


def _first_call(config: Mapping[str, Any], name: str) -> int:
    """Number of a layer's first call: a nested model may have one from when it was made."""
    calls = [node for layer in config["layers"] for node in layer["inbound_nodes"]]
    uses = [reference for node in calls for reference in _references(node)]
    uses += [(entry[0], entry[1]) for entry in _listed(config["output_layers"])]
    return min((number for user, number in uses if user == name), default=0)


def _listed(entries: Any) -> list:
    if isinstance(entries, dict):
        return [each for value in entries.values() for each in _listed(value)]
    return [entries] if entries and isinstance(entries[0], str) else list(entries)


def _ends(entries: Any, tensors: Mapping[tuple, list]) -> Any:
    """Inputs or outputs in the structure that the configuration has: one, a list, or a dictionary."""
    if isinstance(entries, dict):
        return {key: _ends(value, tensors) for key, value in entries.items()}
    found = [tensors[entry[0], entry[1]][entry[2]] for entry in _listed(entries)]
    return found if len(found) > 1 else found[0]
