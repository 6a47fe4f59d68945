"""Images in the plane as the network sees them: which classes it keeps apart, which it mixes up."""

from collections.abc import Iterable

import keras
import numpy as np

from tfopt._checks import check_instance, check_integer, message
from tfopt.data import embed_2d
from tfopt.report.content import Embedding
from tfopt.report.flattening import flat

_NAMES = {"tsne": "t-SNE", "pca": "PCA"}
_BATCH = 32


def embed(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    method: str = "tsne",
    *,
    most: int = 2000,
    seed: int = 0,
) -> Embedding:
    """Places images by the features in front of the model's last layer, for `Report.embedding`.

    Args:
        model: A Functional or Sequential classifier, models nested in it included.
        images: Whatever the model takes, [examples, height, width, channels].
        labels: Class of each image, integers [examples].
        method: "tsne" or "pca", as in `tfopt.data.embed_2d`.
        most: Number of images above which as many are picked at random, >= 3; t-SNE of 2,000 takes seconds.
        seed: Integer >= 0.

    Raises:
        ValueError: If there are fewer than three images, or not one label for each, or the model is
            subclassed.

    Example:
        >>> content = Report("Digits", names, embedding=tfopt.report.embed(model, images, labels))
    """
    labels = np.asarray(labels)
    if labels.shape != (len(images),):
        raise ValueError(message("labels", f"{len(images)} integers", labels.shape))
    parts = (slice(start, start + _BATCH) for start in range(0, len(images), _BATCH))
    batches = ((images[part], labels[part]) for part in parts)
    return embed_batches(model, batches, len(images), method, most=most, seed=seed)


def embed_batches(
    model: keras.Model,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    count: int,
    method: str = "tsne",
    *,
    most: int = 2000,
    seed: int = 0,
) -> Embedding:
    """`embed` for images that do not fit into memory together: reads (images, labels) once, by the batch.

    Args:
        model: As in `embed`.
        batches: Images as the model takes them, and their integer classes.
        count: Number of images in all batches.
        method: As in `embed`.
        most: As in `embed`.
        seed: As in `embed`.
    """
    check_instance("model", model, keras.Model)
    check_integer("most", most, minimum=3)
    model = flat(model)
    extractor = keras.Model(model.inputs[0], model.layers[-1].input)
    chosen: np.ndarray = np.ones(count, bool)
    if count > most:
        chosen[np.random.default_rng(seed).permutation(count)[most:]] = False
    features: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    start = 0
    for images, batch_labels in batches:
        wanted = chosen[start : start + len(images)]
        start += len(images)
        if wanted.any():
            found = extractor.predict_on_batch(images[wanted])
            features.append(np.reshape(found, (len(found), -1)))
            labels.append(batch_labels[wanted])
    if not features:
        raise ValueError(message("images", "at least three", count))
    points = np.concatenate(features)
    # Not finite if the network has diverged, of which a report is wanted all the same.
    points = embed_2d(points, method, seed=seed) if np.isfinite(points).all() else np.zeros((len(points), 2))
    part = f" of {len(points):,} of {count:,} images" if len(points) < count else ""
    text = f"{_NAMES[method]}{part} by the features in front of {model.layers[-1].name!r}."
    return Embedding(points, np.concatenate(labels), text)
