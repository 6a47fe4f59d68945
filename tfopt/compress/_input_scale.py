"""The scale of the pixels that somebody else's model was trained on: found on images, never assumed."""

from collections.abc import Callable

import keras

from tfopt.compress._clone import cloned, new_layer
from tfopt.compress._graph import Graph
from tfopt.compress._pixel_scales import SCALES, Fitness, best_scale

# Layers that may stand in front of the preprocessing without being it, by the names of their classes.
_NEUTRAL = ("InputLayer", "Identity", "Resizing", "CenterCrop", "ZeroPadding2D", "Random", "Dropout")


def scales_itself(model: keras.Model) -> bool:
    """Whether a model changes the scale of its inputs before its first kernel: a `Rescaling` or arithmetic.

    Of a subclassed model, which cannot be looked into, False.
    """
    try:
        graph = Graph(model)
    except ValueError:
        return False
    seen = set(graph.inputs)
    for call in graph.calls:
        if not seen.intersection(call.inputs):
            continue
        layer = call.operation
        if isinstance(layer, keras.layers.Normalization | keras.layers.Rescaling):
            return True
        if isinstance(layer, keras.Layer) and not isinstance(layer, keras.layers.Lambda):
            if not type(layer).__name__.startswith(_NEUTRAL):
                return False
            seen.update(call.outputs)
            continue
        return True  # an operation such as a division, or a Lambda
    return False


def scaled(model: keras.Model, scale: str) -> keras.Model:
    """A model that takes pixels in [0, 255], from one that takes them in another scale.

    Args:
        model: The model; it is returned itself for "pixels".
        scale: One of `SCALES`.
    """
    if scale == "pixels":
        return model
    factor, offset = SCALES[scale]
    shape = model.input_shape
    pixels = keras.Input(shape[1:], batch_size=shape[0], name="pixels")
    rescaled = keras.layers.Rescaling(factor, offset, name="input_scale")(pixels)
    return flat(keras.Model(pixels, model(rescaled), name=model.name))


def flat(model: keras.Model) -> keras.Model:
    """The same function as one Functional model without models in it; a subclassed model as it is."""
    try:
        graph = Graph(model)
    except ValueError:
        return model
    nested = any(isinstance(layer, keras.Model) for layer in model.layers)
    if not nested and not isinstance(model, keras.Sequential):
        return model
    return cloned(graph, new_layer)


def find_scale(
    model: keras.Model,
    score: Callable[[keras.Model], float | Fitness],
    given: str = "auto",
) -> tuple[str, dict[str, float]]:
    """(scale, score of each scale that was tried) of a model's inputs.

    A model that scales its inputs itself takes pixels in [0, 255]. For another one, all scales are tried.

    Args:
        model: The model.
        score: How good a model is that takes pixels in [0, 255]; larger is better.
        given: One of `SCALES`, which is then taken, or "auto": see `best_scale`.
    """
    tried = (given,) if given != "auto" else ("pixels",) if scales_itself(model) else tuple(SCALES)
    found = {}
    for scale in tried:
        value = score(scaled(model, scale))
        found[scale] = value if isinstance(value, Fitness) else Fitness(value)
    return best_scale(found), {scale: fitness.score for scale, fitness in found.items()}
