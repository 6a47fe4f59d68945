"""Gives each epoch `wanted[c]` examples of class c, drawn from shuffled passes over that class.

Counts are exact, not expected values. If examples can be read by index (`ImageDataset` splits), a balanced
dataset is only a mapping from the position in an epoch to an example: no image is copied, and `pipeline`
shuffles and shards it like any other dataset.
"""

from __future__ import annotations  # TensorFlow is not imported for the signatures

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from tfopt._checks import check_choice, check_instance, check_integer, message
from tfopt.data.random_access import RandomAccess, random_access_of

if TYPE_CHECKING:
    import tensorflow as tf
else:
    from tfopt._lazy import tensorflow as tf


_METHODS = ("oversample", "undersample", "rejection")


def balance(
    dataset: tf.data.Dataset,
    method: str = "oversample",
    *,
    target: Sequence[float] | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """Resamples a dataset so that its classes have the wanted shares.

    Args:
        dataset: Unbatched (image, label), with integer or soft labels. Any dataset but a split of
            `ImageDataset` is read twice: once for its labels, then for the examples.
        method: "oversample" repeats examples of rare classes until they match the largest class (relative
            to its target); the repeats of two examples of a class differ by at most one. "undersample"
            keeps a fixed part of the large classes. "rejection" keeps a different part of them in each
            epoch of `pipeline`; for a dataset that is no split of `ImageDataset`, the number of examples
            then varies from pass to pass and is unknown to `fit`.
        target: Share of each class, > 0; None makes them equal.
        seed: Integer >= 0 that decides which examples are repeated or kept.

    Returns:
        A `tf.data.Dataset` of known length, except after "rejection" as said above. An example with a soft
        label belongs to several classes, so the sums of the labels meet the target only as closely as
        repeating whole examples allows.

    Raises:
        ValueError: If a class has no examples, or if soft labels are so mixed that repeating whole
            examples cannot reach the target.

    Example:
        >>> train = tfopt.data.balance(data.train, "oversample")
        >>> batches = tfopt.data.pipeline(train, 32, image_size=224)
    """
    check_choice("method", method, _METHODS)
    check_integer("seed", seed, minimum=0)
    _check_labels(dataset)
    source = random_access_of(dataset)
    if source is not None and source.labels.ndim == 1:
        counts = np.bincount(source.labels)
        wanted = _wanted(counts, method, _target(target, counts))
        return Rebalanced(source, wanted, seed, redraw=method == "rejection").as_dataset()
    labels = np.stack([example[1] for example in dataset.as_numpy_iterator()])
    soft = np.eye(labels.max() + 1)[labels] if labels.ndim == 1 else labels.astype(np.float64)
    share = _shares(soft, _target(target, soft.sum(0)))
    if method == "rejection":
        return _rejected(dataset, share / share.max(), seed)
    copies = _systematic(
        share / (share.max() if method == "undersample" else share[share > 0].min()), soft, seed
    )
    repeats = tf.constant(copies, tf.int64)
    repeated = dataset.enumerate().flat_map(
        lambda number, example: tf.data.Dataset.from_tensors(example).repeat(repeats[number])
    )
    return repeated.apply(tf.data.experimental.assert_cardinality(int(copies.sum())))


def _check_labels(dataset: Any) -> None:
    fix = "Pass a split, such as `data.train`, or call `data.balanced()`."
    check_instance("dataset", dataset, tf.data.Dataset, fix)
    spec = dataset.element_spec
    label = spec[1] if isinstance(spec, tuple) and len(spec) in (2, 3) else None
    if not isinstance(label, tf.TensorSpec) or label.shape.rank not in (0, 1):
        raise ValueError(message("dataset", "unbatched (image, label)", spec, "Pass it before `batch`."))
    if label.dtype == tf.string or (label.shape.rank == 0 and not label.dtype.is_integer):
        fix = "Number the classes first: `dataset.map(lambda x, y: (x, keras.layers.StringLookup(...)(y)))`."
        raise ValueError(message("dataset", "with integer or soft labels", label, fix))


@final
class Rebalanced(RandomAccess):
    """Maps the position in an epoch to a class, and that to an example of a shuffled pass over the class.

    Args:
        base: The examples.
        wanted: Number of examples of each class in an epoch, int64 [classes].
        seed: Integer >= 0.
        redraw: Whether each epoch draws other examples.
    """

    def __init__(self, base: RandomAccess, wanted: np.ndarray, seed: int, redraw: bool) -> None:
        super().__init__(np.repeat(np.arange(len(wanted)), wanted), base.image_size)
        self.base, self.wanted, self.seed, self.redraw = base, wanted, seed, redraw
        self._members = np.argsort(base.labels, kind="stable")
        self._counts = np.bincount(base.labels, minlength=len(wanted))

    @property
    def targets(self) -> tuple[np.ndarray, ...]:
        """The targets of `base`, which `locate` indexes."""
        return self.base.targets

    def over(self, base: RandomAccess) -> Rebalanced:
        """The same selection from another source of the same examples, such as a cache."""
        return Rebalanced(base, self.wanted, self.seed, self.redraw)

    def locate(self, number: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """Index in `base` of the example at `number`; each pass over a class has its own order."""
        label = tf.gather(tf.constant(self.labels), number)
        rank = number - tf.gather(np.cumsum(self.wanted) - self.wanted, label)
        count = tf.gather(self._counts, label)
        draw = (epoch if self.redraw else 0) * 1_000_003 + label
        seed = tf.stack([tf.constant(self.seed, tf.int64) + rank // count, draw])
        place = tf.random.experimental.index_shuffle(rank % count, seed, count - 1)
        return tf.gather(self._members, tf.gather(np.cumsum(self._counts) - self._counts, label) + place)

    def image(self, index: tf.Tensor) -> tf.Tensor:
        """The image of an example of `base`."""
        return self.base.image(index)

    def array(self, index: int) -> np.ndarray:
        """The image of an example of `base`, as an array."""
        return self.base.array(index)


def _target(target: Sequence[float] | None, counts: np.ndarray) -> np.ndarray:
    shares = np.ones(len(counts)) if target is None else np.asarray(target, np.float64)
    if shares.shape != counts.shape or not (shares > 0).all() or not np.isfinite(shares).all():
        raise ValueError(message("target", f"{len(counts)} shares > 0", target))
    if not (counts > 0).all():
        missing = np.flatnonzero(counts <= 0).tolist()
        raise ValueError(message("dataset", "with examples of every class", f"none of {missing}"))
    return shares / shares.sum()


def _wanted(counts: np.ndarray, method: str, target: np.ndarray) -> np.ndarray:
    ratio = counts / target
    total = ratio.max() if method == "oversample" else ratio.min()
    return np.maximum(np.rint(target * total), 1).astype(np.int64)


def _shares(soft: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Weights w_i of the examples for which the weighted sum of the labels y_i is the target.

    Of all solutions it takes the one that is linear in the labels: w_i = r . y_i, where r solves
    sum_i (r . y_i) y_i = target.
    """
    shares = soft @ np.linalg.lstsq(soft.T @ soft, target, rcond=None)[0]
    if (shares < -1e-9).any() or not np.allclose(soft.T @ shares, target, atol=1e-6):
        raise ValueError(message("target", "reachable by repeating whole examples", target.tolist()))
    return np.maximum(shares, 0)


def _systematic(expected: np.ndarray, soft: np.ndarray, seed: int) -> np.ndarray:
    """Rounds expected counts to integers so that the sum over each class is off by less than one.

    Systematic sampling: the cumulative sums are rounded, not the counts. An example belongs to the class
    with its largest label.
    """
    copies: np.ndarray = np.zeros(len(expected), np.int64)
    for label in range(soft.shape[1]):
        members = np.random.default_rng([seed, label]).permutation(np.flatnonzero(soft.argmax(1) == label))
        copies[members] = np.diff(np.floor(np.cumsum(expected[members]) + 0.5), prepend=0)
    return copies


def _rejected(dataset: tf.data.Dataset, chances: np.ndarray, seed: int) -> tf.data.Dataset:
    keep = tf.constant(chances * 2.0**32, tf.float64)  # the draws below have 32 bits
    draws = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    drawn = tf.data.Dataset.zip(dataset.enumerate(), draws)
    kept = drawn.filter(lambda numbered, draw: tf.cast(draw, tf.float64) < keep[numbered[0]])
    return kept.map(lambda numbered, _: numbered[1])
