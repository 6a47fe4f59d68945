"""One layer of a Keras 2 configuration as a layer of Keras 3 that computes the same."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras

# Where Keras 3 has a layer under another name.
RENAMED = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "LSTMV2": "LSTM",
    "GRUV2": "GRU",
    "DenseV1": "Dense",
    "FixedDropout": "Dropout",
    "ThresholdedReLU": "ReLU",
}
# Options without influence on what a trained layer computes. Weights are loaded, so no initializer matters.
WITHOUT_EFFECT = {
    "implementation",
    "input_length",
    "input_dtype",
    "batch_input_shape",
    "batch_size",
    "ragged",
}
WITHOUT_EFFECT |= {"sparse", "dynamic", "autocast", "fused", "experimental_autocast", "rng_type"}
WITHOUT_EFFECT |= {"query_shape", "key_shape", "value_shape"}  # attention finds them when it is called
WRAPPED = ("layer", "backward_layer", "cell")
Notes = dict[str, list[str]]


@keras.saving.register_keras_serializable(package="tfopt")
def hard_sigmoid_of_keras_2(x: Any) -> Any:
    """The `hard_sigmoid` of Keras 2, clip(0.2 x + 0.5, 0, 1); that of Keras 3 is relu6(x + 3) / 6."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


_ACTIVATIONS: dict[str, Callable] = {"hard_sigmoid": hard_sigmoid_of_keras_2}


def layer_of(entry: Mapping[str, Any], custom_objects: Mapping[str, Any], notes: Notes) -> keras.Layer:
    """Makes the layer, not built.

    Args:
        entry: A layer's "class_name" and "config", as Keras 2 wrote them.
        custom_objects: Classes and functions of the user by name.
        notes: What was changed, by the kind of change; names of layers are added.

    Raises:
        ValueError: If Keras 3 has no such layer, or lacks an option that has an effect; the layer is named.
    """
    kind, config = entry["class_name"].split(">")[-1], dict(entry["config"])
    name = config.get("name") or kind
    own = keras.saving.get_registered_object(entry["class_name"], dict(custom_objects))
    if own is not None:
        return own.from_config(config)
    found = getattr(keras.layers, RENAMED.get(kind, kind), None)
    if found is None or not isinstance(found, type):
        raise ValueError(
            f"Layer {name!r} has the class {kind!r}, which Keras {keras.__version__} does not have. If it is "
            f"your own: `tfopt.models.load(path, custom_objects={{{kind!r}: {kind}}})`."
        )
    _adapt(kind, config)
    for key in WRAPPED:
        if isinstance(config.get(key), dict):
            config[key] = layer_of(config[key], custom_objects, notes)
    known = _arguments(found)
    options = {
        key: _value(key, value, name, custom_objects, notes)
        for key, value in config.items()
        if _is_kept(key, value, known, f"{name!r} ({kind})", notes)
    }
    return found(**{key: value for key, value in options.items() if value is not _DROPPED})


def _adapt(kind: str, config: dict[str, Any]) -> None:
    """Differences between the two Keras that are not a missing option."""
    if kind == "ThresholdedReLU":
        config["threshold"] = config.pop("theta", 1.0)
    if kind == "LeakyReLU" and "alpha" in config:
        config["negative_slope"] = float(config.pop("alpha"))
    if kind == "SyncBatchNormalization":
        config["synchronized"] = True
    if kind == "FixedDropout":  # of the package `efficientnet`: a noise shape for whole samples
        config.pop("noise_shape", None)
    if kind in ("GRU", "GRUCell"):
        config.setdefault("reset_after", False)  # files from before this option have its old default
    if isinstance(config.get("axis"), list) and len(config["axis"]) == 1 and "Batch" in kind:
        config["axis"] = config["axis"][0]


def _is_kept(key: str, value: Any, known: Mapping[str, Any], layer: str, notes: Notes) -> bool:
    if key in known and not key.endswith("initializer"):
        return True
    if key.endswith("initializer") or key in WITHOUT_EFFECT:
        return False
    if value in (None, False, []):
        return False
    if value == 1 or key.endswith(("regularizer", "constraint")):
        notes.setdefault(f"left out {key}={value!r}", []).append(layer)
        return False
    raise ValueError(f"Layer {layer} has {key}={value!r}, which Keras {keras.__version__} does not have.")


_DROPPED = object()


def _value(key: str, value: Any, name: str, custom_objects: Mapping[str, Any], notes: Notes) -> Any:
    if key == "dtype" and isinstance(value, dict):
        return value["config"].get("name") or value["config"].get("dtype") or "float32"
    if key.endswith("activation") and value is not None:
        return _activation(value, name, custom_objects, notes)
    if key.endswith(("regularizer", "constraint")) and value is not None:
        module = keras.regularizers if key.endswith("regularizer") else keras.constraints
        try:
            with keras.saving.custom_object_scope(dict(custom_objects)):
                return module.get(value)
        except (ValueError, TypeError):
            label = value.get("class_name", value) if isinstance(value, dict) else value
            notes.setdefault(f"left out the {key} {label!r}", []).append(name)
            return _DROPPED
    return value


def _activation(value: Any, name: str, custom_objects: Mapping[str, Any], notes: Notes) -> Any:
    label = value.get("config", value) if isinstance(value, dict) else value
    label = label.get("name", value.get("class_name")) if isinstance(label, dict) else label
    if label in custom_objects:
        return custom_objects[label]
    if label in _ACTIVATIONS:
        notes.setdefault(f"kept the {label} of Keras 2, which is another function in Keras 3,", []).append(
            name
        )
        return _ACTIVATIONS[label]
    try:
        return keras.activations.get(label)
    except (ValueError, TypeError):
        raise ValueError(
            f"Layer {name!r} has the activation {label!r}, which Keras {keras.__version__} does not have. If "
            f"it is your own: `tfopt.models.load(path, custom_objects={{{label!r}: function}})`."
        ) from None


def _arguments(kind: type) -> dict[str, Any]:
    """What the constructors of a layer and its parents take; parents take what is left in `**kwargs`."""
    found: dict[str, Any] = {}
    for parent in kind.__mro__:
        if parent is keras.Layer:
            break
        if "__init__" in parent.__dict__:
            parameters = inspect.signature(parent.__init__).parameters
            found |= parameters
            if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
                return found
    return found | dict.fromkeys(("name", "dtype", "trainable"))
