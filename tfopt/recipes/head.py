"""Stage 1: the classifier alone, fitted to features that are computed once."""

import contextlib

import keras
import numpy as np
import tensorflow as tf
from scipy.optimize import minimize

from tfopt.compress._folding import folded
from tfopt.recipes.progress import Bar
from tfopt.recipes.setting import Setting

MOST_VIEWS = 8
ENOUGH_EXAMPLES = 800  # augmented views of each image are made until there are about this many
PENALTY = 0.02  # of the squared weights, for features of unit variance
MOST_ITERATIONS = 100

Examples = tuple[np.ndarray, np.ndarray]
History = dict[str, list[float]]


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


def train_head(model: keras.Model, setting: Setting) -> History:
    """Fits the head to features of the images as they are and of augmented views; returns what it reached.

    The convolutions run once over each view instead of once per epoch, and what is left is convex.
    """
    head = head_layer(model)
    train, validation = compute_features(model, head, setting)
    with setting.progress.bar("training the head", MOST_ITERATIONS) as bar:
        weights = logistic_regression(*train, bar)
        reached = {"": _scores(*train, *weights), "val_": _scores(*validation, *weights)}
        bar.show(f"validation {reached['val_']['accuracy']:.1%}")
    head.set_weights(weights)
    return {part + name: [value] for part, scores in reached.items() for name, value in scores.items()}


def refit_head(model: keras.Model, setting: Setting) -> None:
    """Fits the head of a trained model, if it has one, to its features as they are now.

    Unless that costs accuracy on the validation split, which then has decided everything, and is learned
    from as well.
    """
    head = find_head(model)
    if head is None:
        return
    train, validation = compute_features(model, head, setting)
    with setting.progress.bar("fitting the head again", MOST_ITERATIONS) as bar:
        weights = logistic_regression(*train, bar)
        gained = [_scores(*validation, *each)["accuracy"] for each in (weights, head.get_weights())]
        if gained[0] < gained[1]:
            return
        if setting.config.fit_on_validation:
            features, labels = (np.concatenate(arrays) for arrays in zip(train, validation))
            weights = logistic_regression(features, labels, bar)
    head.set_weights(weights)


def compute_features(
    model: keras.Model, head: keras.layers.Dense, setting: Setting
) -> tuple[Examples, Examples]:
    """(features, one-hot labels) of the training views and of the validation split."""
    # In inference a dropout in front of the head passes its input on, so the head's input is the feature.
    extractor = keras.Model(model.input, head.input)
    with contextlib.suppress(ValueError):  # of models with subclassed ones in them
        extractor = folded(extractor)
    passes = [setting.plain("validation"), setting.plain("train")]
    batch = passes[0].element_spec[0]  # of any size: one trace
    extract = tf.function(lambda images: extractor(images, training=False), input_signature=[batch])
    if setting.config.augment is not None:
        examples = sum(setting.balanced.class_counts["train"])
        views = int(np.clip(round(ENOUGH_EXAMPLES / examples), 1, MOST_VIEWS))
        passes += [setting.training(shuffle=False)] * views  # each pass is the next epoch, varied anew
    found = []
    with setting.progress.bar("computing features", sum(len(batches) for batches in passes)) as bar:
        for batches in passes:
            parts = []
            for images, labels in batches:
                parts.append((extract(images).numpy(), labels.numpy()))
                bar.advance()
            found.append(tuple(np.concatenate(arrays) for arrays in zip(*parts)))
    features, labels = (np.concatenate(arrays) for arrays in zip(*found[1:]))
    return (features, labels), found[0]


def logistic_regression(features: np.ndarray, labels: np.ndarray, bar: Bar) -> tuple[np.ndarray, np.ndarray]:
    """The kernel and the bias that minimise cross-entropy plus `PENALTY`, by L-BFGS.

    With gradients of all examples at once it ends where thousands of small steps would, in a second.

    Args:
        features: [examples, features].
        labels: [examples, classes], each row of sum 1.
        bar: Moves by one per iteration.
    """
    center, spread = features.mean(axis=0), max(float(features.std()), 1e-12)
    features = (features - center) / spread
    shape = features.shape[1] + 1, labels.shape[1]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape).astype(features.dtype)
        log_likely = _log_softmax(features @ weights[:-1] + weights[-1])
        loss = PENALTY / 2 * np.sum(weights[:-1] ** 2) - np.sum(labels * log_likely) / len(labels)
        error = (np.exp(log_likely) - labels) / len(labels)
        gradient = np.vstack([features.T @ error + PENALTY * weights[:-1], error.sum(axis=0)])
        return float(loss), gradient.ravel().astype("float64")

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


def _scores(
    features: np.ndarray, labels: np.ndarray, kernel: np.ndarray, bias: np.ndarray
) -> dict[str, float]:
    log_likely = _log_softmax(features @ kernel + bias)
    right = log_likely.argmax(axis=1) == labels.argmax(axis=1)
    return {"loss": float(-np.mean(np.sum(labels * log_likely, axis=1))), "accuracy": float(right.mean())}


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
