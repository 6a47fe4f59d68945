"""Options of what training makes of its images: shares of classes, their weights, random changes."""

import collections.abc
import dataclasses
from typing import TYPE_CHECKING, Literal, Union

from tfopt.recipes.data_options import DataOptions
from tfopt.recipes.options import option

if TYPE_CHECKING:
    import tfopt.data

Augmentation = Union[
    "tfopt.data.Augment",
    "collections.abc.Callable",
    list,
    Literal["auto", "light", "standard", "strong"],
    None,
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingImageOptions(DataOptions):
    """What an epoch of training images is."""

    balance: Literal["oversample", "undersample", "rejection"] | None = option(
        None,
        "data",
        'How all classes get equal shares of an epoch: "oversample" repeats images of rare classes, '
        '"undersample" leaves out images of large ones, "rejection" leaves out others in each epoch.',
        none="classes keep their shares",
    )
    class_weight: dict | Literal["balanced"] | None = option(
        None,
        "data",
        "How much the images of each class count in training, by name or number: cat=3,dog=1; classes that "
        "are not named count 1. balanced: as much as makes all classes count the same.",
        none="all images count the same",
        python="a dict of such numbers",
        metavar="balanced|CLASS=X,...",
    )
    augment: Augmentation = option(
        "auto",
        "data",
        "Random changes of training images.",
        auto="standard for photographs; small shifts, turns and zooms for images below 96 pixels",
        none="no changes",
        python="a `tfopt.data.Augment`, a Keras layer or a list of layers, or a function from float32 images "
        "[batch, height, width, 3] to changed ones (of these, an interrupted run does not repeat the order)",
    )
    seed: int = option(
        0, "data", "Seed of the splits, the order, augmentation and initial weights.", minimum=0
    )
