"""One layer of Keras 3 as the same layer of tf_keras (Keras 2).

Only what is known to mean the same in both is translated. `hard_sigmoid`, for one, is not the same function.
"""

import inspect
from types import ModuleType
from typing import Any

LAYERS = (
    *("Activation", "Add", "Average", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv1D"),
    *("Conv2D", "Cropping2D", "Dense", "DepthwiseConv2D", "Dropout", "Flatten", "GlobalAveragePooling2D"),
    *("GlobalMaxPooling2D", "MaxPooling2D", "Maximum", "Minimum", "Multiply", "Permute", "ReLU", "Rescaling"),
    *(
        "Reshape",
        "SeparableConv2D",
        "Softmax",
        "SpatialDropout2D",
        "Subtract",
        "UpSampling2D",
        "ZeroPadding2D",
    ),
)
ACTIVATIONS = (
    *("elu", "exponential", "gelu", "linear", "relu", "selu", "sigmoid", "silu", "softmax", "softplus"),
    *("softsign", "swish", "tanh"),
)
_RENAMED = {"silu": "swish"}  # tf_keras has the function under its older name only; Keras 3 takes both
_OBJECTS = {"regularizer": "regularizers", "constraint": "constraints"}
_OFF = (None, False, 1)  # values of options without effect


def translated(layer: Any, target: ModuleType, name: str) -> Any:
    """The layer, unbuilt, in tf_keras.

    Args:
        layer: A layer of Keras 3.
        target: The module `tf_keras`.
        name: Of the new layer.

    Raises:
        ValueError: If tf_keras lacks the layer, an option or the activation; the layer is named.
    """
    kind = type(layer).__name__
    if kind not in LAYERS:
        raise ValueError(_refusal(layer, "is not among the layers that both Keras versions share"))
    known = _arguments(target.layers.__dict__[kind])
    options = {"name": name, "trainable": layer.trainable, "dtype": layer.dtype_policy.name}
    for key, value in layer.get_config().items():
        if key in options or key.endswith("initializer"):
            continue  # weights are copied
        if key not in known:
            if value not in _OFF and value != _arguments(type(layer)).get(key):
                raise ValueError(_refusal(layer, f"has {key}={value!r}, which does not exist there"))
            continue
        options[key] = _value(layer, key, value, target)
    return target.layers.__dict__[kind](**options)


def _value(layer: Any, key: str, value: Any, target: ModuleType) -> Any:
    if key == "activation":
        if value not in ACTIVATIONS:
            raise ValueError(_refusal(layer, f"has the activation {value!r}, which differs there"))
        return _RENAMED.get(value, value)
    if key == "axis" and isinstance(value, list) and len(value) == 1:
        return value[0]
    module = _OBJECTS.get(key.split("_")[-1])
    if module is None or value is None:
        return value
    name, config = value["class_name"], value["config"]
    found = target.__dict__[module].__dict__.get(name)
    if found is None:
        raise ValueError(_refusal(layer, f"has {key} {name!r}, which does not exist there"))
    return found(**config)


def _arguments(kind: type) -> dict[str, Any]:
    """Names and default values of a constructor's arguments."""
    return {name: argument.default for name, argument in inspect.signature(kind).parameters.items()}


def _refusal(layer: Any, reason: str) -> str:
    return f"Layer {layer.name!r} ({type(layer).__name__}) cannot cross the bridge: it {reason}."
