"""`predict`: what is on these pictures?"""

import itertools
import json
import logging
import os
import pathlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfopt import _checks
from tfopt._surroundings import visible_cpus
from tfopt.data.decode import BadImageError, decode
from tfopt.recipes.classifier import Classifier
from tfopt.recipes.image_files import image_files

if TYPE_CHECKING:
    import tensorflow as tf

_logger = logging.getLogger(__name__)
_BATCHES_AHEAD = 2  # of images that are decoded while the model computes
_BATCHES_OF_A_ROUND = 16  # of each of several workers, before they tell each other the answers


class Prediction(NamedTuple):
    """What a model says about one image.

    Attributes:
        path: The file.
        classes: Names with their probabilities, the best first; of a regression all targets and numbers.
        error: Why the file could not be read, else None.
    """

    path: str
    classes: list[tuple[str, float]]
    error: str | None = None


def predict(
    model: str | pathlib.Path,
    images: str | os.PathLike | Iterable[str | os.PathLike],
    *,
    top: int = 3,
    threshold: float | None = None,
    class_names: Sequence[str] | None = None,
    input_scale: str = "auto",
    on_bad_image: str = "raise",
    batch_size: int = 32,
    strategy: "tf.distribute.Strategy | None" = None,
) -> list[Prediction]:
    """Answers for image files, by a `.keras`, `.h5` or `.tflite` file.

    Images are read as in training, their EXIF orientation included. A `.tflite` file runs without TensorFlow.

    Args:
        model: The file.
        images: Files, folders (all images below) or patterns such as "photos/*.jpg"; one or several.
        top: How many classes to name for each, >= 1.
        threshold: Only classes with at least this probability, in [0, 1]; perhaps none. None: any; of several
            labels per image those from one half on.
        class_names: Names of the outputs of a model that holds none, in their order.
        input_scale: As in `evaluate`, which can find it. "auto": [0, 255], with a warning if that is a guess.
        on_bad_image: "raise" stops at a file that is no image, "skip" gives a `Prediction` with `error`.
        batch_size: Images at a time, >= 1.
        strategy: With several workers (`make_strategy`), each answers for its part of the images, which all
            must find under the same paths. All call this alike, and get all answers.

    Raises:
        FileNotFoundError: If the model does not exist.
        BadImageError: If an image cannot be read.
        ValueError: If a value is out of its bounds, or there are no images.

    Example:
        >>> from tfopt.recipes import predict
        >>> predict("runs/finetune/model.tflite", "photos/")[0].classes[0]
        ('sunflower', 0.97)
    """
    _checks.check_integer("top", top, minimum=1)
    if threshold is not None:
        _checks.check_number("threshold", threshold, minimum=0, maximum=1)
    _checks.check_choice("on_bad_image", on_bad_image, ("raise", "skip"))
    classifier = Classifier(model, class_names=class_names, threads=visible_cpus(), input_scale=input_scale)
    paths = [images] if isinstance(images, str | os.PathLike) else images
    options: dict[str, Any] = {"top": top, "threshold": threshold, "batch_size": batch_size}
    found = list(answers(classifier, image_files(paths), **options, strategy=strategy))
    if not found:
        raise ValueError(_checks.message("images", "at least one path", images))
    failed = next((prediction for prediction in found if prediction.error is not None), None)
    if failed is not None and on_bad_image == "raise":
        raise BadImageError(failed.path, failed.error)
    return found


def answers(
    classifier: Classifier,
    paths: Iterable[str],
    top: int = 3,
    threshold: float | None = None,
    *,
    batch_size: int = 32,
    strategy: "tf.distribute.Strategy | None" = None,
) -> Iterator[Prediction]:
    """Answers one after the other, with few images in memory: for any number of files.

    With several workers the paths are those of the chief.
    """
    if len(classifier.scales) > 1:
        _logger.warning(
            "%s has no preprocessing inside; its pixels are taken in [0, 255]. If it was trained on another "
            "scale, which `tfopt evaluate` finds, name it by input_scale (--input-scale).",
            classifier.path.name,
        )
    _checks.check_integer("batch_size", batch_size, minimum=1)

    def answered(part: Iterable[str]) -> Iterator[Prediction]:
        return _answers(classifier, part, top, threshold, batch_size)

    return answered(paths) if strategy is None else _together(strategy, paths, answered, batch_size)


def _answers(
    classifier: Classifier, paths: Iterable[str], top: int, threshold: float | None, batch_size: int
) -> Iterator[Prediction]:
    task = classifier.task
    for names, pixels in _batches(iter(paths), classifier.image_size, batch_size):
        read = [part for part in pixels if not isinstance(part, str)]
        outputs = iter(classifier.predict(np.stack(read)) if read else ())
        for path, part in zip(names, pixels):
            if isinstance(part, str):
                yield Prediction(path, [], part)
            else:
                yield Prediction(path, task.answer(next(outputs), top, threshold))


def _together(
    strategy: "tf.distribute.Strategy",
    paths: Iterable[str],
    answered: Callable[[Iterable[str]], Iterator[Prediction]],
    batch_size: int,
) -> Iterator[Prediction]:
    """The answers of all workers in the order of the chief's paths, round after round."""
    from tfopt.distribute.workers import Workers

    workers, every = Workers(strategy), iter(paths)
    at_once = _BATCHES_OF_A_ROUND * batch_size * workers.count
    while part := json.loads(workers.alone(lambda: json.dumps(list(itertools.islice(every, at_once))))):
        first, last = (len(part) * number // workers.count for number in (workers.index, workers.index + 1))
        found = workers.shares(lambda: json.dumps(list(answered(part[first:last]))).encode())  # noqa: B023
        for path, classes, error in itertools.chain.from_iterable(map(json.loads, found)):
            yield Prediction(path, [(name, value) for name, value in classes], error)


def _batches(
    paths: Iterator[str], size: tuple[int, int], batch_size: int
) -> Iterator[tuple[list[str], list[np.ndarray | str]]]:
    """Paths, and the pixels of each or why it cannot be read."""

    def read(path: str) -> np.ndarray | str:
        try:
            return decode(path, size)
        except BadImageError as error:
            return error.reason

    with ThreadPoolExecutor(visible_cpus()) as pool:
        waiting: deque[tuple[list[str], list[Future]]] = deque()
        while True:
            part = list(itertools.islice(paths, batch_size))
            if part:
                waiting.append((part, [pool.submit(read, path) for path in part]))
            if not waiting:
                return
            if len(waiting) > _BATCHES_AHEAD or not part:
                names, futures = waiting.popleft()
                yield names, [future.result() for future in futures]
