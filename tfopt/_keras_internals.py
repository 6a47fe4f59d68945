"""Private Keras names that tfopt needs, one function each, with the reason.

A test per function fails when Keras changes what is behind it.
"""

import keras


def leaf_layers(model: keras.Model) -> list[keras.Layer]:
    """All layers below a model that hold no other layers, nested models and composite layers opened."""
    layers = model._flatten_layers(include_self=False)
    return [layer for layer in layers if not layer._flatten_layers(include_self=False)]
