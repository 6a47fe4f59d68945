"""Augmentation for images whose numbers are places in them, such as boxes and landmarks."""

import dataclasses

from tfopt._checks import message
from tfopt.data import Augment
from tfopt.data.augment.boxes import names_of_places
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.resolved_config import ResolvedConfig
from tfopt.tasks import Regression, Task

_UNNAMED = tuple("0123")  # four numbers of arrays may be a box


def with_labels_in_place(config: ResolvedConfig, asked: FinetuneConfig, task: Task) -> ResolvedConfig:
    """The options without what moves pixels, where the labels are places in the image.

    Args:
        config: The options.
        asked: What the user said.
        task: Whose names say whether its numbers are places.

    Raises:
        ValueError: If the user asked for an augmentation after which the labels no longer fit.
    """
    augment = config.augment
    places = isinstance(task, Regression) and (task.names == _UNNAMED or names_of_places(task.names))
    if not places or not isinstance(augment, Augment) or not augment.moves:
        return config
    if asked.augment != "auto":
        expected = "without options that move pixels, as these numbers may be places in the image"
        given = f"{', '.join(augment.moves)} with the targets {list(task.names)}"
        fix = "Take Augment(color=0.2), or give other names to targets that are no places (`class_names`)."
        raise ValueError(message("augment", expected, given, fix))
    return dataclasses.replace(config, augment=Augment(color=0.2))
