"""Options of every command that trains on images: what their labels are, and where a table has them."""

import dataclasses
from typing import Literal

from tfopt.recipes.options import Options, option

SPLITS = ("auto", "all", "train", "validation", "test")  # that `evaluate` can be asked for


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """How `tfopt.data.load` reads the images."""

    task: Literal["auto", "classification", "multilabel", "regression"] = option(
        "auto",
        "data",
        "What the labels are: one class per image, any number of labels, or numbers.",
        auto="what the labels suggest, which is told",
    )
    image_column: str | None = option(
        None, "data", "Column of a table with the image files.", none="found by usual names and content"
    )
    label_column: str | None = option(
        None,
        "data",
        "Column of a table with the labels, or several with commas between them: zeros and ones, or numbers.",
        none="found by usual names and content",
    )
    on_bad_image: Literal["raise", "skip"] = option(
        "raise", "data", "What happens at a file that is no image: the run stops, or goes on without it."
    )


def several_columns(label_column: str | None) -> str | list[str] | None:
    """The option `label_column` as `tfopt.data.load` takes it: ["a", "b"] of "a,b"."""
    columns = label_column.split(",") if label_column else []
    return columns if len(columns) > 1 else label_column
