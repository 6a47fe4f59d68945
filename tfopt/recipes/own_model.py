"""Somebody else's model, made fit for the recipes: from pixels in [0, 255] to what the task answers."""

import math
import tempfile
from typing import Any

import keras
import numpy as np

from tfopt import compress, models, tasks
from tfopt._checks import message
from tfopt._keras_internals import nodes
from tfopt.compress._clone import cloned, new_layer
from tfopt.compress._graph import Graph
from tfopt.compress._input_scale import find_scale, flat, scaled
from tfopt.compress._pixel_scales import MEANINGS, Fitness
from tfopt.recipes.scale_fitness import fitness
from tfopt.recipes.session import Session
from tfopt.recipes.stages.linear_head import ADVICE, find_head, probe_score

# A trained model must be above chance by one of these: a share of the way to perfect, standard errors.
LEAST_GAIN, LEAST_ERRORS = 0.1, 3.0
TRIED_IMAGES = 512
OPEN_SIZE = 64  # pixels, for a try of a model that takes any size; divisible by the usual strides
KEEPABLE = (
    "Stages are kept in files. Give classes of your own a complete `get_config` and "
    "`keras.saving.register_keras_serializable`, and take a layer such as `Rescaling` instead of a Lambda."
)
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601), as Pillow converts


def load(model: "str | keras.Model") -> keras.Model:
    """The Keras model of a file; a model as it is."""
    return models.load(model) if isinstance(model, str) else model


def adapted(model: keras.Model, session: Session, scale: str) -> keras.Model:
    """A trained model of the task that takes pixels in [0, 255], from one that somebody else trained.

    Nested models become one graph; logits get their activation; one probability of two classes becomes two.

    Args:
        model: A copy of the model, which gives its layers to the new one.
        session: Of the data.
        scale: Of the pixels that it takes, one of `compress._pixel_scales.SCALES`.

    Raises:
        ValueError: If its outputs do not fit the data.
    """
    model = with_activation(with_size(flat(model), session.config.input_size), session.task)
    outputs = model.output_shape
    if len(outputs) != 2 or outputs[-1] != session.task.outputs:
        raise ValueError(
            f"The model must have {session.task.outputs} outputs for the data: {list(session.task.names)}. "
            f"Received: {model.name!r} with outputs of shape {outputs[1:]}."
        )
    return scaled(model, scale)


def trained_scale(model: keras.Model, session: Session) -> str:
    """The scale of the pixels that a trained model takes: found on validation images, and told.

    Raises:
        ValueError: If its outputs do not fit the data, or it is hardly better than chance on them.
    """
    task, (images, labels) = session.task, _examples(session)
    measure, chance, perfect = task.chance(labels)
    words = measure.replace("_", " ")

    def score(candidate: keras.Model) -> Fitness:
        return fitness(task, labels, candidate.predict(images, verbose=0))

    scale, scores = find_scale(adapted(model, session, "pixels"), score, session.config.input_scale)
    tell_scale(session, scale, scores, words)
    error = math.sqrt(chance * (1 - chance) / len(labels))
    if scores[scale] < chance + min(LEAST_GAIN * (perfect - chance), LEAST_ERRORS * error):
        tried = ", ".join(f"{MEANINGS[each]}: {value:.3f}" for each, value in scores.items())
        raise ValueError(
            f"`model` must be trained on this data. Received: a model whose {words} on {len(labels)} "
            f"validation images is hardly above that of chance, {chance:.3f} (pixels scaled to {tried}). Are "
            f"its classes in another order than {list(task.names[:4])}...? Was it trained on pixels of "
            "another scale: put a `keras.layers.Rescaling` in front of it?"
        )
    return scale


def trainable(model: keras.Model, session: Session) -> keras.Model:
    """A model to fine-tune on the task, from one with or without a classifier.

    A head with as many outputs as the task needs stays; a missing one is added, another one replaced.

    Raises:
        ValueError: If it is a subclassed model, which cannot be copied, or its features say nothing.
    """
    if not nodes(model):
        fix = "Build it from `keras.Input` on, and train it with Keras's `fit` otherwise."
        raise ValueError(
            message("model", "a Functional or built Sequential model", type(model).__name__, fix)
        )
    copy = cloned(Graph(model), new_layer)
    check_same(model, copy)
    body = with_head(with_size(copy, session.config.input_size), session.task, session.config.dropout)
    scale: str = session.config.input_scale
    if scale == "auto" and session.config.pretrained and find_head(body) is not None:
        scale, scores = find_scale(body, lambda candidate: probe_score(candidate, session))
        if not np.isfinite(scores[scale]):
            raise ValueError(f"The features of `model` must be finite and vary between images. {ADVICE}")
        tell_scale(session, scale, scores, f"{session.task.decisive} of a linear probe")
    return scaled(body, "pixels" if scale == "auto" else scale)


def check_survives(model: keras.Model, quantization: str | None) -> None:
    """Refuses before anything trains what could not be saved, loaded or quantized after it.

    Raises:
        ValueError: If Keras cannot load what it saves of the model, or it computes something else then; if a
            layer cannot be copied or has a form that int8 does not have.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            model.save(f"{folder}/model.keras")
            loaded = keras.models.load_model(f"{folder}/model.keras", compile=False)
        except Exception as error:  # Keras raises a dozen kinds
            reason = str(error).strip().partition("\n")[0][:300]
            expected = "a model that Keras can save and load again"
            raise ValueError(message("model", expected, f"{model.name!r}: {reason}", KEEPABLE)) from error
    check_same(model, loaded)
    if quantization == "int8":
        compress.quantize_aware(model, input_range=(0, 255))


def check_same(model: keras.Model, copy: keras.Model) -> None:
    """Refuses a copy, made from configs and weights, that computes something else than the model.

    Raises:
        ValueError: If it does.
    """
    sizes = [size or OPEN_SIZE for size in model.input_shape[1:]]
    images = np.random.default_rng(0).uniform(0, 255, (2, *sizes)).astype("float32")
    first, second = (np.asarray(each(images, training=False)) for each in (model, copy))
    if not np.allclose(first, second, rtol=1e-3, atol=1e-3 * np.nanmax(np.abs(first)), equal_nan=True):
        expected = "a model whose copy, made from its configs and weights, computes the same"
        raise ValueError(message("model", expected, repr(model.name), KEEPABLE))


def tell_scale(session: Session, scale: str, scores: dict[str, float], measure: str) -> None:
    """Says which scale was found if there was a choice."""
    if len(scores) > 1:
        tried = ", ".join(f"{MEANINGS[each]} {value:.3f}" for each, value in scores.items())
        session.progress.say(
            f"The model has no preprocessing inside; pixels are scaled to {MEANINGS[scale]} for it "
            f"({measure} on validation images: {tried}). Another scale: input_scale (--input-scale)."
        )


def with_activation(model: keras.Model, task: tasks.Task) -> keras.Model:
    """The same model with the activation of the task behind logits, and two outputs for two classes."""
    ending = activation_of(model)
    if not isinstance(task, tasks.Classification):
        needed = task.activation is not None and ending == "linear"
        return _followed(model, task.activation) if needed else model
    if model.output_shape[-1] == 1 and task.outputs == 2 and ending in ("linear", "sigmoid"):
        return _two_classes(model)
    return _followed(model, "softmax") if ending == "linear" else model


def with_head(model: keras.Model, task: tasks.Task, dropout: float) -> keras.Model:
    """The model with a head for the task, which is its own where that fits."""
    ending, last = activation_of(model), last_weighted(model)
    classifier = isinstance(last, keras.layers.Dense) and ending in ("linear", "sigmoid", "softmax")
    ends_there = classifier and (
        model.layers[-1] is last or len(model.layers) - 2 == model.layers.index(last)
    )
    fits = len(model.output_shape) == 2 and model.output_shape[-1] == task.outputs
    wanted = task.activation or "linear"
    if ends_there and fits and last.use_bias and ending == wanted:
        return model
    if not ends_there and fits and ending == wanted:
        return model  # a classifier of convolutions, such as SqueezeNet's
    x = last.input if ends_there else model.output
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D(name=_free(model, "features"))(x)
    elif len(x.shape) > 2:
        x = keras.layers.Flatten(name=_free(model, "features"))(x)
    keeps = ends_there and fits and last.use_bias  # its weights, with another activation behind them
    if not keeps:
        x = keras.layers.Dropout(dropout, name=_free(model, "dropout_features"))(x)
    head = keras.layers.Dense(task.outputs, name=_free(model, "logits"))
    x = head(x)
    if task.activation is not None:
        name = _free(model, "probabilities")
        x = keras.layers.Activation(task.activation, name=name, dtype="float32")(x)
    result = keras.Model(model.inputs[0], x, name=model.name)
    if keeps:
        head.set_weights(last.get_weights())
    return result


def with_size(model: keras.Model, size: tuple[int, int]) -> keras.Model:
    """The model for RGB images of one size, if it leaves that open or takes gray images."""
    shape = model.input_shape
    if None not in shape[1:] and shape[3] == 3:
        return model
    x = pixels = keras.Input((*size, 3), name="pixels")
    if shape[3] == 1:
        gray = keras.layers.Conv2D(1, 1, use_bias=False, trainable=False, name="gray")
        x = gray(x)
        gray.set_weights([np.reshape(LUMINANCE, (1, 1, 3, 1))])
    return flat(keras.Model(pixels, model(x), name=model.name))


def activation_of(model: keras.Model) -> str:
    """What a model ends in: "softmax", "sigmoid", "linear" (logits, numbers), or another name."""
    last = model.layers[-1]
    if isinstance(last, keras.layers.Softmax):
        return "softmax"
    function = getattr(last, "activation", None)
    if isinstance(last, keras.layers.Activation | keras.layers.Dense | keras.layers.Conv2D):
        return getattr(function, "__name__", "other")
    return "linear" if isinstance(last, keras.layers.GlobalAveragePooling2D) else "other"


def _followed(model: keras.Model, activation: str | None) -> keras.Model:
    layer = keras.layers.Activation(activation, name=_free(model, "probabilities"), dtype="float32")
    return keras.Model(model.inputs[0], layer(model.outputs[0]), name=model.name)


def _two_classes(model: keras.Model) -> keras.Model:
    """softmax([0, z]) = [1 - sigmoid(z), sigmoid(z)]: the same probabilities from two outputs."""
    head = last_weighted(model)
    if not isinstance(head, keras.layers.Dense):
        return model
    twins = keras.layers.Dense(2, use_bias=head.use_bias, name=_free(model, f"{head.name}_two"))
    softmax = keras.layers.Activation("softmax", name=_free(model, "probabilities"), dtype="float32")
    x = softmax(twins(head.input))
    twins.set_weights([np.concatenate([np.zeros_like(w), w], axis=-1) for w in head.get_weights()])
    return keras.Model(model.inputs[0], x, name=model.name)


def _free(model: keras.Model, name: str) -> str:
    """A name for a layer that the model does not have yet."""
    taken = {layer.name for layer in model.layers}
    while name in taken:
        name += "_1"
    return name


def last_weighted(model: keras.Model) -> Any:
    """The last layer with weights, or None."""
    weighted = [layer for layer in model.layers if layer.weights]
    return weighted[-1] if weighted else None


def _examples(session: Session) -> tuple[np.ndarray, np.ndarray]:
    """Validation images of all classes, and their labels."""
    pairs = [(x.numpy(), y.numpy()) for x, y in session.sample("validation", images=TRIED_IMAGES)]
    images, labels = (np.concatenate(arrays) for arrays in zip(*pairs))
    return images, labels
