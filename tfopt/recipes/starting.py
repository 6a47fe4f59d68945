"""The model that the training of a session starts from."""

import keras

from tfopt import models, tasks
from tfopt.models import _architectures
from tfopt.recipes import own_model
from tfopt.recipes.resolved_config import SMALL_IMAGE, ResolvedConfig
from tfopt.recipes.session import Session

UNITS = "target_units"  # name of the layer that gives numbers their units


def starting_model(session: Session) -> keras.Model:
    """The untrained or pretrained model; one that was given by the caller is copied, not changed.

    Raises:
        ValueError: If a model of the user's own, or weights, do not fit.
    """
    keras.utils.set_random_seed(session.config.seed)
    with session.home.scope():
        if session.config.own_model:
            model = own_model.trainable(own_model.load(session.config.model), session)
        else:
            model = _named(session.config, session.task)
        return in_units(model, session.task)


def _named(config: ResolvedConfig, task: tasks.Task) -> keras.Model:
    small = config.weights is None and config.image_size < SMALL_IMAGE
    return models.image_model(
        config.model,
        task.outputs,
        activation=task.activation,
        image_size=config.image_size,
        alpha=config.alpha,
        weights=config.weights,
        dropout=config.dropout,
        stem_stride=1 if small and config.model in _architectures.MOBILENETS else 2,
    )


def in_units(model: keras.Model, task: tasks.Task) -> keras.Model:
    """A model whose head predicts numbers of mean 0, deviation 1, which a last layer turns into targets."""
    if not isinstance(task, tasks.Regression):
        return model
    layer = keras.layers.Rescaling(task.deviation.tolist(), task.mean.tolist(), name=UNITS)
    return keras.Model(model.inputs[0], layer(model.outputs[0]), name=model.name)


def without_units(model: keras.Model) -> keras.Model:
    """The same function with the units in the weights of the head: one rounding less in int8."""
    head = own_model.last_weighted(model)
    units = model.layers[-1]
    if units.name != UNITS or not isinstance(head, keras.layers.Dense) or units.input is not head.output:
        return model
    kernel, bias = head.get_weights()
    head.set_weights([kernel * units.scale, bias * units.scale + units.offset])
    return keras.Model(model.inputs[0], head.output, name=model.name)
