"""Fewer dimensions: PCA as a Keras layer that learns from a stream, and maps to the plane."""

import logging
from collections.abc import Iterator
from typing import Any, final

import keras
import numpy as np
import tensorflow as tf

from tfopt._checks import check_choice, check_instance, check_integer, message
from tfopt._optional import require

_logger = logging.getLogger(__name__)
_WIDE = 4096
_OVERSAMPLING, _PASSES = 16, 6
_FEW, _MANY = 1_000, 10_000


@final
@keras.saving.register_keras_serializable(package="tfopt")
class PCA(keras.layers.Layer):
    """Projects the last axis on the directions of largest variance.

    Use it on features, to make a small head smaller or to whiten its inputs; `Flatten` images first.
    Its weights are saved with the model and exported with it.

    Update: y = (x - mean) @ components^T, divided by the standard deviations if whitening.

    Memory: features^2 doubles while adapting, up to 4,096 features (one pass over the data); beyond,
    features x (components + 16) doubles and 7 passes of a randomized method, exact where the spectrum falls.

    Args:
        n_components: Number of directions, >= 1.
        whiten: Make every output's variance 1.
        **kwargs: As in `keras.layers.Layer`.

    Raises:
        ValueError: In `adapt`, if there are not more examples and features than components.

    Example:
        >>> pca = tfopt.data.PCA(32)
        >>> pca.adapt(features)
        >>> small = pca(features)

    Differs from `sklearn.decomposition.PCA`: a stream is enough, and the result is part of the model.

    References:
        Halko, Martinsson, Tropp: Finding structure with randomness, arXiv:0909.4061.
    """

    def __init__(self, n_components: int, whiten: bool = False, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self.n_components = check_integer("n_components", n_components, minimum=1)
        self.whiten = check_instance("whiten", whiten, bool)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights: all zeros until `adapt`."""
        features = input_shape[-1]
        self.mean = self.add_weight(shape=(features,), initializer="zeros", name="mean")
        matrix, vector = (self.n_components, features), (self.n_components,)
        self.components = self.add_weight(shape=matrix, initializer="zeros", name="components")
        self.explained_variance = self.add_weight(shape=vector, initializer="ones", name="explained_variance")
        self.total_variance = self.add_weight(shape=(), initializer="ones", name="total_variance")

    def adapt(self, data: Any) -> None:
        """Learns the directions.

        Args:
            data: An array [examples, features], or a batched `tf.data.Dataset` of x or (x, y).
        """
        first = next(_batches(data), np.empty((0, 0)))
        if not first.size:
            raise ValueError(message("data", "with examples", first.shape))
        features = first.shape[1]
        if not self.built:
            self.build((None, features))
        count, shift, covariance = 0, first.mean(0), None
        total, squares = np.zeros(features), np.zeros(features)
        for batch in _batches(data):
            centered = batch - shift  # near the mean, so that nothing cancels
            count, total = count + len(batch), total + centered.sum(0)
            squares += np.square(centered).sum(0)
            if features <= _WIDE:
                covariance = centered.T @ centered + (0 if covariance is None else covariance)
        if count <= self.n_components or features < self.n_components:
            fix = f"There are {count} examples of {features} features."
            raise ValueError(message("n_components", "below the number of examples", self.n_components, fix))
        offset = total / count
        if covariance is None:
            variances, directions = self._randomized(data, shift + offset, count, features)
        else:
            values, vectors = np.linalg.eigh((covariance - count * np.outer(offset, offset)) / (count - 1))
            variances, directions = values[::-1], vectors[:, ::-1].T
        directions = directions[: self.n_components]
        largest = np.abs(directions).argmax(1)
        signs = np.sign(directions[np.arange(self.n_components), largest])  # as scikit-learn's
        self.mean.assign(shift + offset)
        self.components.assign(directions * signs[:, None])
        self.explained_variance.assign(np.maximum(variances[: self.n_components], 0))
        self.total_variance.assign((squares - count * np.square(offset)).sum() / (count - 1))

    @property
    def explained_variance_ratio(self) -> np.ndarray:
        """Share of the variance in each direction."""
        return keras.ops.convert_to_numpy(self.explained_variance / self.total_variance)

    def call(self, inputs: Any) -> Any:
        """Projects the last axis."""
        projected = keras.ops.matmul(inputs - self.mean, keras.ops.transpose(self.components))
        return projected / self._scale() if self.whiten else projected

    def inverse(self, outputs: Any) -> Any:
        """The inputs that the outputs stand for, without what was left out."""
        outputs = keras.ops.convert_to_tensor(outputs)
        outputs = outputs * self._scale() if self.whiten else outputs
        return keras.ops.matmul(outputs, self.components) + self.mean

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The last axis becomes the components."""
        return (*input_shape[:-1], self.n_components)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {"n_components": self.n_components, "whiten": self.whiten}
        base = super().get_config()
        base.pop("trainable")
        return {**base, **own}

    def _scale(self) -> Any:
        return keras.ops.sqrt(keras.ops.maximum(self.explained_variance, keras.config.epsilon()))

    def _randomized(
        self, data: Any, mean: np.ndarray, count: int, features: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Subspace iteration on the covariance, which is never formed."""
        width = min(self.n_components + _OVERSAMPLING, features)
        basis = np.linalg.qr(np.random.default_rng(0).normal(size=(features, width)))[0]
        for step in range(_PASSES):
            product = np.zeros((features, width))
            for batch in _batches(data):
                centered = batch - mean
                product += centered.T @ (centered @ basis)
            if step < _PASSES - 1:
                basis = np.linalg.qr(product)[0]
        values, vectors = np.linalg.eigh(basis.T @ product / (count - 1))
        return values[::-1], (basis @ vectors[:, ::-1]).T


def embed_2d(features: Any, method: str = "tsne", *, seed: int = 0) -> np.ndarray:
    """Places examples in the plane so that similar ones lie together, for a look at classes.

    Distances between far clusters in a t-SNE mean nothing; use "pca" where they should.

    Args:
        features: [examples, features].
        method: "tsne" or "pca" (both scikit-learn's); t-SNE starts from 50 principal components.
        seed: Integer >= 0.

    Returns:
        float [examples, 2].
    """
    check_choice("method", method, ("tsne", "pca"))
    check_integer("seed", seed, minimum=0)
    features = np.asarray(features)
    if features.ndim != 2 or len(features) < 3 or features.shape[1] < 2:
        raise ValueError(message("features", "[3 or more examples, 2 or more features]", features.shape))
    if (features == features[0]).all():  # t-SNE would divide by their spread and end the process
        return np.zeros((len(features), 2))
    decomposition = require("sklearn.decomposition", "`tfopt.data.embed_2d`")
    if method == "pca":
        return decomposition.PCA(2, random_state=seed).fit_transform(features)
    if len(features) > _MANY:
        _logger.warning(
            "t-SNE of %d examples takes minutes; a sample of %d shows the same", len(features), _MANY
        )
    width = min(50, *features.shape)
    if width < features.shape[1]:
        features = decomposition.PCA(width, random_state=seed).fit_transform(features)
    manifold = require("sklearn.manifold", "`tfopt.data.embed_2d`")
    tsne = manifold.TSNE(2, perplexity=min(30.0, (len(features) - 1) / 3), init="pca", random_state=seed)
    # Threads that wait for each other after every small step are 50 times slower on a busy machine.
    threads = require("threadpoolctl", "`tfopt.data.embed_2d`")
    with threads.threadpool_limits(1 if len(features) < _FEW else None):
        return tsne.fit_transform(features)


def _batches(data: Any) -> Iterator[np.ndarray]:
    """float64 batches [examples, features]."""
    stream = [np.asarray(data)] if not isinstance(data, tf.data.Dataset) else data
    for element in stream:
        batch = np.asarray(element[0] if isinstance(element, tuple) else element, np.float64)
        if batch.ndim != 2:
            raise ValueError(
                message("data", "of shape [examples, features]", batch.shape, "Flatten it first.")
            )
        if not np.isfinite(batch).all():
            raise ValueError(message("data", "finite", "NaN or infinity"))
        yield batch
