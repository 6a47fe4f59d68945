"""Flat copies of models, whose inner layers a report can look into."""

import keras

from tfopt.compress._clone import cloned, new_layer
from tfopt.compress._graph import Graph


def flat(model: keras.Model) -> keras.Model:
    """The same function as one Functional model without models inside it.

    The outputs of layers in a nested model, and in a Sequential one that was loaded from a file, do not lead
    back to the input of the whole.

    Raises:
        ValueError: If the model is subclassed, or a layer cannot be made again from its config.
    """
    return cloned(Graph(model), new_layer)
