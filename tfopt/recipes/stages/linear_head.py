"""The head as a linear model of features that are computed once."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from scipy.optimize import minimize

from tfopt.compress._folding import folded
from tfopt.recipes.progress import Bar
from tfopt.recipes.session import Session
from tfopt.recipes.sources import image_counts
from tfopt.recipes.stages.features import Block, Examples, Spool
from tfopt.tasks import Task

MOST_VIEWS = 8
ENOUGH_EXAMPLES = 800  # augmented views of each image are made until there are about this many
PENALTY = 0.02  # of the squared weights, for features of unit variance
MOST_ITERATIONS = 100
PROBE_IMAGES = 256
LEAST_SPREAD = 1e-5  # of the most varied feature; that of a network with weights is above 0.01
ADVICE = (
    "Its weights were not loaded, or it was trained on pixels of another scale. Load its weights before, "
    "name the scale by input_scale (--input-scale), or train all layers from random weights: weights=None "
    "(--weights none)."
)

Loss = Callable[[np.ndarray, np.ndarray, np.ndarray | float], tuple[float, np.ndarray]]


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
    if hardly_vary(train):
        return
    with session.progress.bar("fitting the head again", MOST_ITERATIONS) as bar:
        weights = fit_linear(train, task.fit_of_head, bar)
        new, old = (
            task.quality(scores(validation, each, task), prefix="") for each in (weights, head.get_weights())
        )
        if new[0] < old[0]:
            return
        if session.config.fit_on_validation:
            weights = fit_linear(train.with_more(validation), task.fit_of_head, bar)
    head.set_weights(weights)


def probe_score(model: keras.Model, session: Session) -> float:
    """How good a linear head on the features of a few images is on validation images; larger is better."""
    head, task = head_layer(model), session.task
    extractor = keras.Model(model.input, head.input)
    train, validation = (
        Examples.of(
            Block(extractor.predict_on_batch(images), labels.numpy())
            for images, labels in session.sample(split, images=PROBE_IMAGES)
        )
        for split in ("train", "validation")
    )
    if hardly_vary(train):
        return -np.inf
    with session.progress.bar("trying a scale of pixels", MOST_ITERATIONS) as bar:
        weights = fit_linear(train, task.fit_of_head, bar)
    return task.quality(scores(validation, weights, task), prefix="")[0]


def hardly_vary(examples: Examples) -> bool:
    """Whether the features of all images are as good as equal, or not finite: a head would learn noise."""
    _, deviations, _ = examples.spreads()
    return not float(deviations.max()) > LEAST_SPREAD


def check_features(examples: Examples) -> None:
    """Refuses features that say nothing about images.

    Raises:
        ValueError: If they are not finite or hardly vary.
    """
    _, deviations, _ = examples.spreads()
    if not np.isfinite(deviations).all():
        raise ValueError("The features of `model` are not finite on these images: check its weights.")
    if hardly_vary(examples):
        raise ValueError(
            "The features of `model` must vary between images. Received: features whose standard deviation "
            f"is at most {deviations.max():.1g}. {ADVICE}"
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
    spool = Spool()
    with session.progress.bar("computing features", sum(len(batches) for batches in passes)) as bar:

        def blocks(batches: tf.data.Dataset) -> Iterator[Block]:
            for images, labels, *weights in batches:
                column = [each.numpy().reshape(-1, 1) for each in weights]
                yield Block(extract(images).numpy(), labels.numpy(), *column)
                bar.advance()

        validation, train, *views_of_train = [Examples.of(blocks(batches), spool) for batches in passes]
    return train.with_more(*views_of_train), validation


def fit_linear(examples: Examples, loss: Loss, bar: Bar) -> tuple[np.ndarray, np.ndarray]:
    """The kernel and the bias that minimize a convex loss plus `PENALTY`, by L-BFGS.

    With gradients of all examples at once it ends where thousands of small steps would. The gradient is a sum
    over blocks of examples, which are read from the disk if they are many.

    Args:
        examples: Their weights are brought to a mean of 1, so that the penalty keeps its share.
        loss: Of (logits, labels, weights): the value and its gradient with respect to the logits.
        bar: Moves by one per iteration.
    """
    center, _, spread = examples.spreads()
    spread = max(spread, 1e-12)
    sizes = [(len(block.labels), float(np.mean(block.weights)), block.labels.shape[1]) for block in examples]
    count, outputs = sum(rows for rows, *_ in sizes), sizes[0][-1]
    mean_weight = max(sum(rows * weight for rows, weight, _ in sizes) / count, 1e-12)
    shape = len(center) + 1, outputs

    def normalized(block: Block) -> Block:
        return Block((block.features - center) / spread, block.labels, block.weights / mean_weight)

    # One block is kept: it is small, and would be made again a hundred times.
    kept = [normalized(block) for block in examples] if len(sizes) == 1 else None

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape).astype(center.dtype)
        gradient = np.vstack([PENALTY * weights[:-1], np.zeros((1, outputs), center.dtype)])
        total = float(PENALTY / 2 * np.sum(weights[:-1] ** 2))
        for features, labels, weights_of_examples in kept or map(normalized, examples):
            value, error = loss(features @ weights[:-1] + weights[-1], labels, weights_of_examples)
            share = len(labels) / count
            total += share * value
            gradient += np.vstack([features.T @ error, error.sum(axis=0)]) * share
        return total, gradient.ravel().astype("float64")

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


def scores(examples: Examples, weights: Sequence[np.ndarray], task: Task) -> dict[str, float]:
    """Loss and decisive metric of a head with these weights (kernel, bias), as Keras would log them."""
    kernel, bias = weights
    found = ((block.features @ kernel + bias, block.labels) for block in examples)
    if not task.scores_are_means:
        logits, labels = (np.concatenate(parts) for parts in zip(*found))
        return task.scores_of_head(logits, labels)
    parts = [(len(labels), task.scores_of_head(logits, labels)) for logits, labels in found]
    count = sum(rows for rows, _ in parts)
    return {name: sum(rows * part[name] for rows, part in parts) / count for name in parts[0][1]}
