"""The main job as something to search: which settings matter, and how one set of them is scored."""

import dataclasses
import hashlib
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Console

from tfopt._checks import check_choice, message
from tfopt.data import ImageDataset
from tfopt.distribute.cluster import read_cluster
from tfopt.models._architectures import MOBILENETS
from tfopt.recipes.config import FinetuneConfig
from tfopt.recipes.finetuning import finetune
from tfopt.recipes.progress import ConsoleProgress
from tfopt.recipes.sources import load_images, size_of
from tfopt.tune.journal import Trial
from tfopt.tune.space import Domain, Range, Space, When

METRICS = ("accuracy", "bytes", "bytes_zipped", "latency_ms")
_FIELDS = {field.name for field in dataclasses.fields(FinetuneConfig)}
_SMALL_IMAGE = 96  # pixels; below it a picture may be a character, which no preset may flip
_RUNNING = {"output", "overwrite", "seed", "on_bad_image", "strategy", "threads", "data_threads"}
_NOT_SEARCHED = _RUNNING | {"fit_on_validation", "task", "image_column", "label_column", "input_scale"}


def default_space(config: FinetuneConfig, images: ImageDataset) -> Space:
    """The settings that decide most about the result, with the range that is worth trying.

    What a configuration rules out is left out: what differs from its default there, the width of a network
    whose weights are a file, the depth of unfreezing where all layers start from random weights. A sparsity
    asks for pruning, and how much is searched. The optimizer, the schedule and the
    quantization can be searched too; they are left as they are unless the space names them.
    """
    resolved = config.resolved(size_of(images))
    photographs = resolved.image_size >= _SMALL_IMAGE
    space: dict[str, Range | list[Any]] = {
        "learning_rate": Range(3e-4, 1e-2, log=True),
        "batch_size": [16, 32, 64],
        "batch_growth": [1, 4],
        "weight_decay": Range(1e-4, 1e-1, log=True),
        "warmup": [0.0, 0.1, 0.3],
        "dropout": [0.0, 0.2, 0.5],
        "label_smoothing": [0.0, 0.1, 0.2],
        "augment": ["light", "standard", "strong", None] if photographs else ["auto", None],
    }
    if resolved.pretrained:
        space["unfreeze"] = [0.25, 0.5, 1.0]
    elif resolved.model in MOBILENETS:
        space["alpha"] = [0.25, 0.35, 0.5]
    default = FinetuneConfig()
    space = {
        name: values for name, values in space.items() if getattr(config, name) == getattr(default, name)
    }
    if config.sparsity is not None:
        space["sparsity"] = [0.5, 0.7, 0.8]
    return space


def check_settings(space: Mapping[str, Domain]) -> dict[str, Range | list[Any]]:
    """The space, or an error that names what is no setting of the main job."""
    plain = {name: domain for name, domain in space.items() if not isinstance(domain, When)}
    if len(plain) < len(space):
        fix = "All settings of the main job matter in every trial. `When` needs `evaluate`."
        raise ValueError(message("space", "without `When`", sorted(set(space) - set(plain)), fix))
    wrong = sorted(set(space) - (_FIELDS - _NOT_SEARCHED))
    if wrong:
        expected = "made of fields of FinetuneConfig: " + ", ".join(sorted(_FIELDS - _NOT_SEARCHED))
        raise ValueError(message("space", expected, wrong, "Other settings need `evaluate`."))
    for name, domain in plain.items():
        for value in domain if isinstance(domain, list) else (domain.low, domain.high):
            setting: dict[str, Any] = {name: value}
            FinetuneConfig(**setting)  # refuses a wrong one before the first trial
    return plain


def check_metrics(names: Iterable[str]) -> None:
    """Refuses an objective that no trial of the main job reports, before an hour of trials."""
    for name in names:
        check_choice("objective", name, METRICS)


def held_back(data: Any, config: FinetuneConfig) -> ImageDataset:
    """The data with the validation split in place of the test split, which a search must not see."""
    workers = read_cluster(os.environ)
    if workers is not None:
        raise ValueError(
            f"A search over `finetune` uses one worker, and {workers.source} names {len(workers.workers)}. "
            "Start it without `tfopt launch`, or with several searching side by side: `tfopt launch --tuner`."
        )
    images = load_images(data, config, needed=())
    if images.task == "regression":
        fix = "Search settings for numbers with `evaluate=` a function of your own."
        raise ValueError(
            message("data", "images with classes or labels, whose accuracy is searched", "numbers", fix)
        )
    if images.validation is None:
        fix = "Load it with `validation_split` above 0."
        raise ValueError(message("data", "a data set with a validation split", images.class_counts, fix))
    counts = {**images.class_counts, "test": images.class_counts["validation"]}
    return dataclasses.replace(images, test=images.validation, class_counts=counts)


def values_as_they_are(
    config: FinetuneConfig, images: ImageDataset, space: Mapping[str, Range | list[Any]]
) -> dict[str, Any] | None:
    """The point of the space at which the main job is what it is without a search, if there is one."""
    size = size_of(images)
    resolved = config.resolved(size)
    values: dict[str, Any] = {}
    for name, domain in space.items():
        if isinstance(domain, Range):
            value = getattr(resolved, name)
            fits = [value] if value is not None and domain.low <= value <= domain.high else []
        else:
            fits = [v for v in domain if dataclasses.replace(config, **{name: v}).resolved(size) == resolved]
        if not fits:
            return None
        values[name] = fits[0]
    return values


def epochs_of(images: ImageDataset, config: FinetuneConfig) -> int:
    """The epochs of the second stage."""
    return max(1, config.resolved(size_of(images)).epochs)


def evaluate_finetuning(
    images: ImageDataset, config: FinetuneConfig, space: Space, folder: pathlib.Path
) -> Callable[[dict[str, Any], int | None], Mapping[str, float]]:
    """Returns the function that runs the main job and reports on the file it exports.

    Args:
        images: Result of `held_back`.
        config: The settings that are not searched.
        space: Those that are.
        folder: Each trial leaves its model, its file and its report in a folder of its own below it.
    """
    quiet = ConsoleProgress(Console(quiet=True))
    if "image_size" not in space:  # read and resize once, not once per trial
        images = images.resized(config.resolved(size_of(images)).image_size)

    def evaluate(values: dict[str, Any], epochs: int | None) -> dict[str, float]:
        name = hashlib.sha256(Trial(values, epochs).key.encode()).hexdigest()[:12]
        changes = {**values, "output": str(folder / "trials" / name), "overwrite": True}
        changes["fit_on_validation"] = False  # which is the test here
        if epochs is not None:
            changes["epochs"] = epochs
        result = finetune(images, dataclasses.replace(config, **changes), progress=quiet)
        shutil.rmtree(folder / "trials" / name / "stages", ignore_errors=True)  # most of the bytes
        row = result.comparison.rows[-1]
        return dict(zip(METRICS, (row.accuracy, row.bytes, row.bytes_zipped, row.latency.median_ms)))

    return evaluate
