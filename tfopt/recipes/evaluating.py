"""`evaluate`: how good is this file on these images?"""

import dataclasses
import hashlib
import json
import logging
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from tfopt import _checks
from tfopt._table import Printable
from tfopt.compress._pixel_scales import MEANINGS, best_scale
from tfopt.data.dataset import ImageDataset
from tfopt.data.layout import split_of
from tfopt.data.loading import Examples, read_examples
from tfopt.data.random_access import random_access_of
from tfopt.recipes.classifier import Classifier
from tfopt.recipes.data_options import SPLITS, several_columns
from tfopt.recipes.evaluation_tables import tables
from tfopt.recipes.labeled_batches import LabeledBatches
from tfopt.recipes.scale_fitness import fitness_of
from tfopt.tasks import Classification, Task
from tfopt.tasks.tally import Tally

if TYPE_CHECKING:
    import tensorflow as tf

_logger = logging.getLogger(__name__)
_DRAWN = {"validation": 0.15, "test": 0.15}  # as `tfopt.data.load` draws splits that the data lacks


@final
@dataclasses.dataclass(frozen=True)
class Evaluation(Printable):
    """What a file reaches on labeled images; prints as tables.

    Attributes:
        model: The file.
        data: Where the images came from.
        split: Which of them were judged.
        samples: How many.
        task: "classification", "multilabel" or "regression".
        measures: Plain values by name, as `Task.measures` gives them: of a classification "accuracy",
            "classes" (precision, recall, F1 and support of each) and "confusion", among others.
        bytes: Size of the file.
        latency_ms: Median time of one image by the interpreter with one thread; None for Keras models.
    """

    model: str
    data: str
    split: str
    samples: int
    task: str
    measures: dict[str, Any]
    bytes: int
    latency_ms: float | None

    def __rich__(self) -> Any:
        """Tables for a rich console."""
        return tables(self)

    def to_json(self) -> str:
        """All values as JSON text; numbers that are not defined are null."""
        return json.dumps(_plain(dataclasses.asdict(self)), indent=2)


def evaluate(
    model: str | pathlib.Path,
    source: Any,
    *,
    split: str = "auto",
    seed: int = 0,
    on_bad_image: str = "raise",
    class_names: Sequence[str] | None = None,
    input_scale: str = "auto",
    task: str = "auto",
    image_column: str | None = None,
    label_column: str | None = None,
    strategy: "tf.distribute.Strategy | None" = None,
) -> Evaluation:
    """Measures a `.keras`, `.h5` or `.tflite` file on labeled images.

    Images are read as in training, one batch after the other. Of classes only counts are in memory, of
    several labels and of numbers the labels and outputs. A `.tflite` file runs without TensorFlow. Classes
    are matched by their names, so the data may have fewer of them than the model, in another order.

    Args:
        model: The file.
        source: What `tfopt.data.load` takes. Use the seed of the training run where splits are drawn,
            else images that were trained on are counted.
        split: "train", "validation", "test", or "all" images. "auto": "test", but "all" for a folder that is
            itself a split by its name, such as "photos/test".
        seed: Of the splits.
        on_bad_image: "raise" or "skip".
        class_names: Names of the outputs of a model that holds none, in their order.
        input_scale: Scale of the pixels that a Keras model was trained on: "pixels" is [0, 255], "unit"
            [0, 1], "signed" [-1, 1], "imagenet" ImageNet's mean and deviation. "auto": the one with the best
            result, which is told, for a model that neither tfopt made nor scales pixels itself.
        task: What the labels are. "auto": what the model answers; where its file does not say whether
            sigmoid outputs are classes or several labels, what the labels suggest.
        image_column: Column of a table with the image files; None finds it.
        label_column: Column with the labels, or several with commas between them; None finds it.
        strategy: With several workers (`make_strategy`), each judges its part of the images. All call this
            with the same arguments, and get the same result.

    Returns:
        An `Evaluation`.

    Raises:
        FileNotFoundError: If the model does not exist.
        ValueError: If the model does not know a class of the data, or the split does not exist.

    Example:
        >>> from tfopt.recipes import evaluate
        >>> evaluate("runs/photos/model.tflite", "photos/").measures["accuracy"]
        0.962
    """
    _checks.check_choice("split", split, SPLITS)
    classifier = Classifier(model, class_names=class_names, input_scale=input_scale)
    if split == "auto":
        split = "all" if _is_split(source) else "test"
    columns = {"image_column": image_column, "label_column": several_columns(label_column)}
    kind = (None if classifier.task_is_open else classifier.task.name) if task == "auto" else task
    options = {"task": kind, "columns": columns}
    data = _opened(source, {} if split == "all" else _DRAWN, seed, on_bad_image, options)
    known = classifier.task_for(data.about.get("task", Classification.name))
    places = _places(known, data)
    batches = LabeledBatches(_chosen(data, split), classifier.image_size)

    def judged(worker: int = 0, workers: int = 1) -> dict[str, Tally]:
        tallies = {scale: known.tally() for scale in classifier.scales}
        for images, targets in batches.part(worker, workers):
            truth = _relabeled(targets, places, known)
            for scale, tally in tallies.items():
                tally.add(truth, classifier.predict(images, scale))
        return tallies

    if strategy is None:
        tallies, latency = judged(), _latency(classifier)
    else:
        tallies, latency = _together(strategy, judged, batches, classifier)
    samples = next(iter(tallies.values())).count
    if not samples:
        raise ValueError(_checks.message("split", "a split with images", split))
    return Evaluation(
        model=str(classifier.path),
        data=str(data.about.get("source", "")),
        split=split,
        samples=samples,
        task=known.name,
        measures=_best_scale(tallies),
        bytes=classifier.path.stat().st_size,
        latency_ms=latency,
    )


def _together(
    strategy: "tf.distribute.Strategy",
    judged: Callable[[int, int], dict[str, Tally]],
    batches: LabeledBatches,
    classifier: Classifier,
) -> tuple[dict[str, Tally], float | None]:
    """What all workers count, each in its part of the images, and the latency on the chief."""
    from tfopt.distribute.workers import Workers

    workers = Workers(strategy)
    digest = hashlib.sha256(classifier.path.read_bytes()).hexdigest()
    workers.check_same("model and labels of the images", digest + batches.described())

    own: dict[str, Tally] = {}

    def share() -> bytes:
        own.update(judged(workers.index, workers.count))
        return b""

    workers.shares(share)
    tallies = {scale: classifier.task.tally() for scale in own}
    for scale, tally in own.items():
        for content in workers.gathered(tally.to_bytes()):
            tallies[scale].add_bytes(content)
    return tallies, json.loads(workers.alone(lambda: json.dumps(_latency(classifier))))


def _best_scale(tallies: dict[str, Tally]) -> dict[str, Any]:
    """The measures with the scale of pixels that fits best; it is told if there was a choice."""
    found = {scale: tally.measures() for scale, tally in tallies.items()}
    best = best_scale({scale: fitness_of(tally) for scale, tally in tallies.items()})
    if len(found) > 1:
        measure, _, _ = tallies[best].chance()
        tried = ", ".join(f"{MEANINGS[scale]} {each[measure]:.3f}" for scale, each in found.items())
        text = "The model has no preprocessing inside; pixels were scaled to %s for it (%s: %s)."
        _logger.warning(text + " Another scale: input_scale (--input-scale).", MEANINGS[best], measure, tried)
    return found[best]


def _is_split(source: Any) -> bool:
    """Whether a folder is one split of a data set, by its name."""
    if not isinstance(source, str | os.PathLike) or not os.path.isdir(source):
        return False
    return split_of(os.path.basename(os.path.abspath(source))) is not None


def _opened(
    source: Any, drawn: dict[str, float], seed: int, on_bad_image: str, options: dict[str, Any]
) -> Examples:
    """The splits of the data; as datasets where TensorFlow has to read them."""
    if not isinstance(source, ImageDataset):
        shares = {"validation": 0.0, "test": 0.0} | drawn
        found = read_examples(source, shares, seed, on_bad_image, **options)
        if isinstance(found, Examples):
            return found
        source = found
    splits = {
        name: random_access_of(part) or part for name, part in source.splits().items() if part is not None
    }
    return Examples(splits, source.class_names, {"task": source.task, "source": source.source})


def _chosen(data: Examples, split: str) -> list[Any]:
    if split == "all":
        return list(data.splits.values())
    if split not in data.splits:
        present = ", ".join(repr(name) for name in (*data.splits, "all"))
        raise ValueError(_checks.message("split", f"one of {present}, which the data has", split))
    return [data.splits[split]]


def _places(task: Task, data: Examples) -> list[int]:
    """The output of the model for each class of the data.

    Raises:
        ValueError: If the model does not know one of them, or the data is of another task.
    """
    kind = data.about.get("task", "classification")
    if kind != task.name:
        raise ValueError(f"The model is one for {task.name}, and the labels of the data are for {kind}.")
    numbers = {name: place for place, name in enumerate(task.names)}
    unknown = [name for name in data.names if name not in numbers]
    if unknown or (task.name != "classification" and len(data.names) != task.outputs):
        raise ValueError(
            f"The classes of the model and of the data differ: {list(task.names)} and {list(data.names)}."
        )
    return [numbers[name] for name in data.names]


def _relabeled(labels: np.ndarray, places: list[int], task: Task) -> np.ndarray:
    """Labels in the order of the outputs of the model."""
    if isinstance(task, Classification) and labels.ndim == 1:
        return np.asarray(places)[labels]
    ordered = np.zeros((len(labels), task.outputs), labels.dtype)
    ordered[:, places] = labels.reshape(len(labels), -1)
    return ordered


def _latency(classifier: Classifier) -> float | None:
    return classifier.model.benchmark(seconds=0.5).median_ms if classifier.path.suffix == ".tflite" else None


def _plain(value: Any) -> Any:
    """The value with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
