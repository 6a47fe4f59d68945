"""Images in the plane as the network sees them: which classes it keeps apart, which it mixes up."""

import keras
import numpy as np

from tfopt._checks import check_instance, check_integer, message
from tfopt.data import embed_2d
from tfopt.report.content import Embedding

_NAMES = {"tsne": "t-SNE", "pca": "PCA"}


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
        model: A functional or Sequential classifier.
        images: Whatever the model takes, [examples, height, width, channels].
        labels: Class of each image, integers [examples].
        method: "tsne" or "pca", as in `tfopt.data.embed_2d`.
        most: Number of images above which as many are picked at random, >= 3; t-SNE of 2,000 takes seconds.
        seed: Integer >= 0.

    Raises:
        ValueError: if there are fewer than three images, or not one label for each.

    Example:
        >>> content = Report("Digits", names, embedding=tfopt.report.embed(model, images, labels))
    """
    check_instance("model", model, keras.Model)
    check_integer("most", most, minimum=3)
    labels = np.asarray(labels)
    if labels.shape != (len(images),):
        raise ValueError(message("labels", f"{len(images)} integers", labels.shape))
    chosen = np.arange(len(images))
    if len(chosen) > most:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, most, replace=False))
    features = _features(model, images[chosen])
    finite = np.isfinite(
        features
    ).all()  # not so if the network has diverged; a report is wanted all the same
    points = embed_2d(features, method, seed=seed) if finite else np.zeros((len(chosen), 2))
    part = f" of {len(chosen):,} of {len(images):,} images" if len(chosen) < len(images) else ""
    text = f"{_NAMES[method]}{part} by the features in front of {model.layers[-1].name!r}."
    return Embedding(points, labels[chosen], text)


def _features(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Inputs of the last layer, [examples, features]."""
    if isinstance(model, keras.Sequential):  # whose layers, if it was loaded, have inputs of an earlier build
        copy = keras.models.clone_model(model)
        copy.set_weights(model.get_weights())
        model = copy
    features = keras.Model(model.inputs[0], model.layers[-1].input).predict(images, verbose=0)
    return features.reshape(len(features), -1)
