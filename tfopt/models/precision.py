"""A model in another precision, with the same weights."""

from typing import Any

import keras

from tfopt._named_outputs import output_layers, with_output_names


def in_precision(model: keras.Model, precision: str | None) -> keras.Model:
    """Returns a copy that computes in another precision; its weights stay float32, and its results too.

    Use it to train fast on hardware with native bfloat16, and give the weights back to the model:
    `model.set_weights(copy.get_weights())`.

    Args:
        model: Functional or Sequential, nested ones too; left as it is.
        precision: Name of a dtype policy such as "mixed_bfloat16"; None copies without a change.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(2)])
        >>> in_precision(model, "mixed_bfloat16").layers[0].compute_dtype
        'bfloat16'
    """
    copy = keras.models.clone_model(model, clone_function=_cloner(model, precision), recursive=True)
    copy.set_weights(model.get_weights())
    return copy if isinstance(copy, keras.Sequential) else with_output_names(copy, model.output_names)


def _cloner(model: keras.Model, precision: str | None) -> Any:
    """Copies a layer, in another precision unless it gives a result."""
    last = _outputs(model)

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if precision is not None:
            config["dtype"] = "float32" if layer.name in last else precision
        copy = layer.__class__.from_config(config)
        copy.trainable = layer.trainable
        return copy

    return clone


def _outputs(model: keras.Model) -> set[str]:
    """Names of the layers that give the results, those of nested models too."""
    sequential = isinstance(model, keras.Sequential)
    layers = model.layers[-1:] if sequential else output_layers(model)
    inner = [_outputs(layer) for layer in layers if isinstance(layer, keras.Model)]
    return {layer.name for layer in layers}.union(*inner)
