"""The main job as something to search: which settings matter, and how one set of them is scored."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from tfopt._checks import message
from tfopt.data import ImageDataset, load
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.finetune import finetune
from tfopt.tune.journal import Trial
from tfopt.tune.space import Range, Space

_FIELDS = {field.name for field in dataclasses.fields(FinetuneConfig)}
_NOT_SEARCHED = {"output", "overwrite", "seed", "on_bad_image", "strategy"}


def default_space(config: FinetuneConfig) -> Space:
    """The settings that decide most about the result, with the range that is worth trying.

    What a configuration rules out is left out: the width of a network whose weights are a file.
    """
    space: dict[str, Range | list[Any]] = {
        "learning_rate": Range(1e-4, 1e-2, log=True),
        "batch_size": [16, 32, 64],
        "head_epochs": [5, 10, 20],
        "label_smoothing": [0.0, 0.1, 0.2],
        "augment": [True, False],
    }
    if not config.pretrained:
        space["alpha"] = [0.25, 0.5]
    if config.sparsity is not None:
        space["sparsity"] = [0.5, 0.7, 0.8]
    return space


def check_settings(space: dict[str, Range | list[Any]]) -> dict[str, Range | list[Any]]:
    """The space, or an error that names what is no setting of the main job."""
    wrong = sorted(set(space) - (_FIELDS - _NOT_SEARCHED))
    if wrong:
        expected = "made of fields of FinetuneConfig: " + ", ".join(sorted(_FIELDS - _NOT_SEARCHED))
        raise ValueError(message("space", expected, wrong, "Other settings need `evaluate`."))
    return space


def held_back(data: Any, config: FinetuneConfig) -> ImageDataset:
    """The data with the validation split in place of the test split, which a search must not see."""
    images = data if isinstance(data, ImageDataset) else load(data, seed=config.seed)
    if images.validation is None:
        fix = "Load it with `validation_split` above 0."
        raise ValueError(message("data", "a data set with a validation split", images.class_counts, fix))
    counts = {**images.class_counts, "test": images.class_counts["validation"]}
    return dataclasses.replace(images, test=images.validation, class_counts=counts)


def evaluate_finetuning(
    data: ImageDataset, config: FinetuneConfig, folder: pathlib.Path
) -> Callable[[dict[str, Any], int | None], Mapping[str, float]]:
    """Returns the function that runs the main job and reports on the file it exports."""

    def evaluate(values: dict[str, Any], epochs: int | None) -> dict[str, float]:
        name = hashlib.sha256(Trial(values, epochs).key.encode()).hexdigest()[:12]
        changes = {**values, "output": str(folder / "trials" / name), "overwrite": True}
        if epochs is not None:
            changes["epochs"] = epochs
        result = finetune(data, dataclasses.replace(config, **changes))
        row = result.comparison.rows[-1]
        return {
            "accuracy": row.accuracy,
            "bytes": row.bytes,
            "bytes_zipped": row.bytes_zipped,
            "latency_ms": row.latency.median_ms,
        }

    return evaluate
