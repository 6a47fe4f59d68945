"""The head as a linear model of features that are computed once."""

import contextlib
from collections.abc import Callable
from typing import NamedTuple, Self

import keras
import numpy as np
import tensorflow as tf
from scipy.optimize import minimize

from tfopt.compress._folding import folded
from tfopt.recipes.progress import Bar
from tfopt.recipes.session import Session, image_counts

MOST_VIEWS = 8
ENOUGH_EXAMPLES = 800  # augmented views of each image are made until there are about this many
PENALTY = 0.02  # of the squared weights, for features of unit variance
MOST_ITERATIONS = 100
PROBE_BATCHES = 8
LEAST_SPREAD = 1e-5  # of the most varied feature; that of a network with weights is above 0.01
ADVICE = (
    "Its weights were not loaded, or it was trained on pixels of another scale. Load its weights before, "
    "name the scale by input_scale (--input-scale), or train all layers from random weights: weights=None "
    "(--weights none)."
)

Loss = Callable[[np.ndarray, np.ndarray, np.ndarray | float], tuple[float, np.ndarray]]


class Examples(NamedTuple):
    """What a head learns from.

    Attributes:
        features: [examples, features].
        labels: [examples, outputs], encoded.
        weights: [examples, 1], of the examples, or 1.
    """

    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | float = 1.0

    def with_more(self, *others: Self) -> "Examples":
        """These examples and others."""
        parts = (self, *others)
        weights = [np.broadcast_to(np.float32(part.weights), (len(part.labels), 1)) for part in parts]
        features, labels = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
        return Examples(features, labels, np.concatenate(weights))


def find_head(model: keras.Model) -> keras.layers.Dense | None:
    """The last layer with weights, which a linear probe trains, if it is dense and has a bias."""
    weighted = [layer for layer in model.layers if layer.weights]
    fits = bool(weighted) and isinstance(weighted[-1], keras.layers.Dense) and weighted[-1].use_bias
    return weighted[-1] if fits else None


def head_layer(model: keras.Model) -> keras.layers.Dense:
    """The result of `find_head`.

    Raises:
        ValueError: If there is none.
    """
    head = find_head(model)
    if head is None:
        expected = "a model whose last layer with weights is dense and has a bias, to be fine-tuned"
        raise ValueError(f"`model` must be {expected}. Received: {model.name!r}.")
    return head


def refit_head(model: keras.Model, session: Session) -> None:
    """Fits the head of a trained model, if it has one, to the features after the training.

    Keeps the old head if the new one is worse on validation; else, with `fit_on_validation`, refits on train
    and validation, as nothing remains to be chosen.
    """
    head, task = find_head(model), session.task
    if head is None:
        return
    train, validation = compute_features(model, head, session)
    if not np.isfinite(train.features).all() or hardly_vary(train.features):
        return
    with session.progress.bar("fitting the head again", MOST_ITERATIONS) as bar:
        weights = fit_linear(train, task.fit_of_head, bar)
        features, labels, _ = validation
        logits = [features @ kernel + bias for kernel, bias in (weights, head.get_weights())]
        new, old = (task.quality(task.scores_of_head(each, labels), prefix="") for each in logits)
        if new[0] < old[0]:
            return
        if session.config.fit_on_validation:
            weights = fit_linear(train.with_more(validation), task.fit_of_head, bar)
    head.set_weights(weights)


def probe_score(model: keras.Model, session: Session) -> float:
    """How good a linear head on the features of a few images is on validation images; larger is better."""
    head, task = head_layer(model), session.task
    extractor = keras.Model(model.input, head.input)
    found: list[Examples] = []
    for batches in (session.sample(), session.plain("validation")):
        pairs = [(extractor.predict_on_batch(x), y) for x, y, *_ in batches.take(PROBE_BATCHES)]
        features, labels = (np.concatenate(arrays) for arrays in zip(*pairs))
        found.append(Examples(features, labels))
    train, validation = found
    if not np.isfinite(train.features).all() or hardly_vary(train.features):
        return -np.inf
    with session.progress.bar("trying a scale of pixels", MOST_ITERATIONS) as bar:
        kernel, bias = fit_linear(train, task.fit_of_head, bar)
    features, labels, _ = validation
    return task.quality(task.scores_of_head(features @ kernel + bias, labels), prefix="")[0]


def hardly_vary(features: np.ndarray) -> bool:
    """Whether the features of all images are as good as equal: a head fitted to them would be of noise."""
    return not float(features.std(axis=0).max()) > LEAST_SPREAD


def check_features(features: np.ndarray) -> None:
    """Refuses features that say nothing about images.

    Raises:
        ValueError: If they are not finite or hardly vary.
    """
    if not np.isfinite(features).all():
        raise ValueError("The features of `model` are not finite on these images: check its weights.")
    if hardly_vary(features):
        raise ValueError(
            "The features of `model` must vary between images. Received: features whose standard deviation "
            f"is at most {features.std(axis=0).max():.1g}. {ADVICE}"
        )


def compute_features(
    model: keras.Model, head: keras.layers.Dense, session: Session
) -> tuple[Examples, Examples]:
    """The training views and the validation split, with the weights that training gives them."""
    # In inference a dropout in front of the head passes its input on, so the head's input is the feature.
    extractor = keras.Model(model.input, head.input)
    with contextlib.suppress(ValueError):  # of models with subclassed ones in them
        extractor = folded(extractor)
    passes = [session.plain(split, weighted=True) for split in ("validation", "train")]
    batch = passes[0].element_spec[0]  # of any size: one trace
    extract = tf.function(lambda images: extractor(images, training=False), input_signature=[batch])
    if session.config.augment is not None:
        examples = image_counts(session.balanced)["train"]
        views = int(np.clip(round(ENOUGH_EXAMPLES / examples), 1, MOST_VIEWS))
        passes += [session.training(shuffle=False)] * views  # each pass is the next epoch, varied anew
    found = []
    with session.progress.bar("computing features", sum(len(batches) for batches in passes)) as bar:
        for batches in passes:
            parts = []
            for images, labels, *weights in batches:
                column = [each.numpy().reshape(-1, 1) for each in weights]
                parts.append(Examples(extract(images).numpy(), labels.numpy(), *column))
                bar.advance()
            found.append(parts[0].with_more(*parts[1:]))
    validation, train, *views_of_train = found
    return train.with_more(*views_of_train), validation


def fit_linear(examples: Examples, loss: Loss, bar: Bar) -> tuple[np.ndarray, np.ndarray]:
    """The kernel and the bias that minimize a convex loss plus `PENALTY`, by L-BFGS.

    With gradients of all examples at once it ends where thousands of small steps would, in a second.

    Args:
        examples: Their weights are brought to a mean of 1, so that the penalty keeps its share.
        loss: Of (logits, labels, weights): the value and its gradient with respect to the logits.
        bar: Moves by one per iteration.
    """
    features, labels, weights_of_examples = examples
    weights_of_examples = weights_of_examples / max(float(np.mean(weights_of_examples)), 1e-12)
    center, spread = features.mean(axis=0), max(float(features.std()), 1e-12)
    features = (features - center) / spread
    shape = features.shape[1] + 1, labels.shape[1]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape).astype(features.dtype)
        value, error = loss(features @ weights[:-1] + weights[-1], labels, weights_of_examples)
        gradient = np.vstack([features.T @ error + PENALTY * weights[:-1], error.sum(axis=0)])
        return float(PENALTY / 2 * np.sum(weights[:-1] ** 2) + value), gradient.ravel().astype("float64")

    start = np.zeros(shape[0] * shape[1])
    found = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        callback=lambda _: bar.advance(),
        options={"maxiter": MOST_ITERATIONS},
    )
    bar.move_to(MOST_ITERATIONS)
    kernel, bias = np.split(found.x.reshape(shape), [shape[0] - 1])
    kernel = kernel / spread
    return kernel, bias[0] - center @ kernel
