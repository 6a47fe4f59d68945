"""Class balance: data sets whose classes have the wanted shares.

Counts are exact, not expected. On data that can be read in any order (`ImageDataset` splits) a balanced
data set is a rule that says which example stands at which number of an epoch, so nothing is copied and
`pipeline` shuffles and shards it like any other.
"""

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import tensorflow as tf

from tfopt._checks import check_choice, check_instance, check_integer, message
from tfopt.data.random_access import RandomAccess, random_access_of

_METHODS = ("oversample", "undersample", "rejection")


def balance(
    dataset: tf.data.Dataset,
    method: str = "oversample",
    *,
    target: Sequence[float] | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """A data set in which the classes have the wanted shares.

    Args:
        dataset: Unbatched (image, label). A split of `ImageDataset` is read in any order; any other data
            set, with integer or soft labels, is read twice: labels first.
        method: "oversample" repeats examples of rare classes until the largest (relative to its target)
            is matched, all examples equally often up to one; "undersample" keeps a part of the large
            classes; "rejection" keeps another part in each epoch of `pipeline` (of a data set that must
            be read from its beginning: in each pass; its length then varies and is unknown to `fit`).
        target: Share of each class, > 0; None makes them equal.
        seed: Integer >= 0 that decides which examples are repeated or kept.

    Returns:
        A `tf.data.Dataset` of known length (but see "rejection"). With soft labels, whose classes cannot
        be picked one by one, the summed labels meet the target as well as whole examples allow.

    Raises:
        ValueError: if a class has no examples, or soft labels are so mixed that no weighting of whole
            examples gives the target.

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
    """A wanted number of examples of each class: number -> class -> place in a shuffled round of it.

    Args:
        base: The examples.
        wanted: Examples of each class in an epoch.
        seed: Integer >= 0.
        redraw: Choose anew in each epoch.
    """

    def __init__(self, base: RandomAccess, wanted: np.ndarray, seed: int, redraw: bool) -> None:
        super().__init__(np.repeat(np.arange(len(wanted)), wanted), base.image_size)
        self.base, self.wanted, self.seed, self.redraw = base, wanted, seed, redraw
        self._members = np.argsort(base.labels, kind="stable")
        self._counts = np.bincount(base.labels, minlength=len(wanted))

    @property
    def targets(self) -> tuple[np.ndarray, ...]:
        """Those of the data set underneath, at whose examples `locate` points."""
        return self.base.targets

    def over(self, base: RandomAccess) -> "Rebalanced":
        """The same choice of the same examples, read in another way."""
        return Rebalanced(base, self.wanted, self.seed, self.redraw)

    def locate(self, number: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        """The example that stands for `number`; each round over a class has its own order."""
        label = tf.gather(tf.constant(self.labels), number)
        rank = number - tf.gather(np.cumsum(self.wanted) - self.wanted, label)
        count = tf.gather(self._counts, label)
        draw = (epoch if self.redraw else 0) * 1_000_003 + label
        seed = tf.stack([tf.constant(self.seed, tf.int64) + rank // count, draw])
        place = tf.random.experimental.index_shuffle(rank % count, seed, count - 1)
        return tf.gather(self._members, tf.gather(np.cumsum(self._counts) - self._counts, label) + place)

    def image(self, index: tf.Tensor) -> tf.Tensor:
        """Of the data set underneath."""
        return self.base.image(index)

    def array(self, index: int) -> np.ndarray:
        """Of the data set underneath."""
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
    """How often each example must come so that the summed labels are proportional to the target.

    They are linear in the label, w_i = r . y_i, with r from sum_i w_i y_i = target.
    """
    shares = soft @ np.linalg.lstsq(soft.T @ soft, target, rcond=None)[0]
    if (shares < -1e-9).any() or not np.allclose(soft.T @ shares, target, atol=1e-6):
        raise ValueError(message("target", "reachable by repeating whole examples", target.tolist()))
    return np.maximum(shares, 0)


def _systematic(expected: np.ndarray, soft: np.ndarray, seed: int) -> np.ndarray:
    """Whole numbers next to the expected ones, whose sum over each (largest) class is right up to one."""
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
