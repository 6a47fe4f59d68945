"""The names of a Functional model's outputs, kept while its layers change."""

from collections.abc import Sequence
from typing import Any

import keras
from keras.src.models.functional import (
    Functional,
)  # the class of `keras.Model(inputs, outputs)`, not exported


@keras.saving.register_keras_serializable(package="tfopt")
class NamedOutputs(Functional):
    """A Functional model whose outputs have names of their own: Keras takes those of the last layers.

    Losses, metrics and labels given by name, and the signature of a file, find the outputs by them.
    """

    def get_config(self) -> dict[str, Any]:
        """With the names."""
        return {**super().get_config(), "output_names": list(self.output_names)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "NamedOutputs":
        """Sets them again."""
        config = dict(config)
        names = config.pop("output_names")
        model = super().from_config(config, custom_objects)
        model.output_names = names
        return model


def with_output_names(model: keras.Model, names: Sequence[str]) -> keras.Model:
    """A Functional model with other names for its outputs; itself if it has these."""
    if list(model.output_names) == list(names):
        return model
    named = NamedOutputs(model.input, model.output, name=model.name)
    named.output_names = list(names)
    return named


def output_layers(model: keras.Model) -> list[Any]:
    """The layer or operation that makes each output of a Functional model."""
    return [tensor._keras_history.operation for tensor in model.outputs]
