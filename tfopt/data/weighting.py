"""Weights of classes, and of examples by their class, for every form of labels that Keras trains on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfopt._checks import check_choice, check_number, message
from tfopt.losses.counts import check_counts


def class_weights(counts: Any, rule: str = "balanced", *, beta: float = 0.999) -> Any:
    """Weights of the classes for `fit(class_weight=...)` or `weighted`, with mean 1.

    Use them for moderate imbalance; for strong imbalance `tfopt.losses.LogitAdjusted` usually gives
    better recall. Do not combine them with `balance`, which would correct twice.

    Args:
        counts: Examples of each class, each >= 1, such as `data.class_counts["train"]`; or a dict of such
            counts by the name of an output, which gives a dict of weights for `weighted`.
        rule: "balanced": 1 / n. "effective_number": (1 - beta) / (1 - beta^n), which grows less for rare
            classes (Cui et al., Class-Balanced Loss, arXiv:1901.05555).
        beta: In [0, 1); 0 gives equal weights, towards 1 they approach "balanced".

    Example:
        >>> class_weights([100, 10])
        {0: 0.181..., 1: 1.818...}

    Differs from scikit-learn's "balanced", whose weighted examples, not weights, have mean 1.
    """
    if isinstance(counts, Mapping):
        return {output: class_weights(part, rule, beta=beta) for output, part in counts.items()}
    numbers = check_counts(counts)
    check_choice("rule", rule, ("balanced", "effective_number"))
    check_number("beta", beta, minimum=0, maximum=1, open_maximum=True)
    weights = (
        1 / numbers if rule == "balanced" else (1 - beta) / -np.expm1(numbers * np.log(max(beta, 1e-300)))
    )
    return {label: float(weight) for label, weight in enumerate(weights / weights.mean())}


def weighted(batches: Any, weights: Any) -> Any:
    """Adds sample weights by class to (x, y), or multiplies the weights of (x, y, weights) by them.

    Args:
        batches: A `tf.data.Dataset`, batched or not, or a tuple of arrays. Labels may be class numbers
            [batch] or [batch, 1] of any type, 0.0 and 1.0 of one sigmoid, one-hot or soft labels
            (y @ weights), or any of these for each pixel [batch, height, width(, classes)]. With several
            outputs, y is a dict, tuple or list.
        weights: Weight of each class, {0: 1.0, 1: 3.0}; for several outputs a dict, tuple or list of such
            weights in the form of y. Outputs of a dict that are left out have weight 1.

    Returns:
        A dataset or a tuple of arrays (x, y, weights); weights have the form of y.

    Raises:
        ValueError: If weights leave out a label or do not fit the outputs, and for labels that are text.

    Example:
        >>> batches = weighted(batches, {"color": {0: 1.0, 1: 3.0}, "shape": class_weights([50, 10])})

    Differs from `fit(class_weight=...)`, which gives a soft label the weight of its largest class and
    refuses several outputs.
    """
    if not isinstance(batches, tf.data.Dataset):
        return _weighted_arrays(batches, weights)
    spec = batches.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise ValueError(message("batches", "of (x, y) or (x, y, weights)", spec))
    tables = _tables(weights, spec[1])
    sizes = {part.shape[0] for part in tf.nest.flatten(spec[0]) if part.shape.rank}

    def add(x: Any, y: Any, *given: Any) -> tuple[Any, Any, Any]:
        return x, y, _of_outputs(y, tables, given[0] if given else None, sizes)

    return batches.map(add, num_parallel_calls=tf.data.AUTOTUNE)


def _weighted_arrays(arrays: Any, weights: Any) -> Any:
    if not isinstance(arrays, tuple) or len(arrays) not in (2, 3):
        expected = "a tf.data.Dataset or a tuple of arrays (x, y) or (x, y, weights)"
        raise TypeError(message("batches", expected, type(arrays).__name__))
    x, y, *given = arrays
    labels = tf.nest.map_structure(tf.convert_to_tensor, y)
    found = _of_outputs(labels, _tables(weights, labels), given[0] if given else None, {len(_first(y))})
    return x, y, tf.nest.map_structure(lambda part: part.numpy(), found)


def _first(y: Any) -> Any:
    if isinstance(y, Mapping):
        return next(iter(y.values()))
    return y[0] if isinstance(y, tuple | list) else y


def _tables(weights: Any, y: Any) -> Any:
    """Weights as arrays in the form of `y`, None for an output without."""
    if isinstance(y, Mapping):
        outputs = sorted(map(str, y))
        if not isinstance(weights, Mapping) or not weights or set(weights) - set(y):
            expected = f"a dict by output, {{output: {{label: weight}}}}, of the outputs {outputs}"
            raise ValueError(message("weights", expected, weights))
        return {name: _tables(weights[name], part) if name in weights else None for name, part in y.items()}
    if isinstance(y, tuple | list):
        if not isinstance(weights, tuple | list) or len(weights) != len(y):
            raise ValueError(message("weights", f"{len(y)} dicts, one for each output in order", weights))
        return [_tables(*pair) for pair in zip(weights, y)]
    if not isinstance(weights, Mapping) or set(weights) != set(range(len(weights))) or not weights:
        raise ValueError(message("weights", "a dict of the labels 0 ... classes - 1", weights))
    if y.dtype == tf.string:
        fix = "Number them first, as with `dataset.map(lambda x, y: (x, keras.layers.StringLookup(...)(y)))`."
        raise ValueError(message("labels", "numbers, not text", y.dtype.name, fix))
    return np.array([weights[label] for label in range(len(weights))], np.float32)


def _of_outputs(y: Any, tables: Any, given: Any, sizes: set[int | None]) -> Any:
    """Sample weights in the form of `y`; given weights are for every output, or in the form of `y`."""
    if isinstance(y, Mapping):
        part = given if isinstance(given, Mapping) else dict.fromkeys(y, given)
        return {name: _of_outputs(y[name], tables[name], part.get(name), sizes) for name in y}
    if isinstance(y, tuple | list):
        parts = given if isinstance(given, tuple | list) else [given] * len(y)
        return type(y)(_of_outputs(*triple, sizes) for triple in zip(y, tables, parts))
    found = tf.ones(tf.shape(y)[:1]) if tables is None else _of_labels(y, tables, sizes)
    if given is None:
        return found
    given = tf.cast(given, tf.float32)
    while given.shape.rank > 1 and given.shape[-1] == 1 and given.shape.rank > found.shape.rank:
        given = given[..., 0]
    for _ in range(found.shape.rank - given.shape.rank):
        given = given[..., None]
    return found * given


def _of_labels(y: tf.Tensor, table: np.ndarray, sizes: set[int | None]) -> tf.Tensor:
    classes, rank = len(table), y.shape.rank
    soft = rank >= 1 and y.shape[-1] == classes and classes > 1
    if soft and rank == 1:  # a batch of as many labels as classes, or one label of an unbatched dataset
        soft = y.dtype.is_floating and classes not in sizes
    if soft:
        return tf.reduce_sum(tf.cast(y, tf.float32) * table, -1)
    if rank > 1 and y.shape[-1] == 1:
        y = y[..., 0]
    if y.dtype.is_floating and classes == 2:  # the target of one sigmoid, soft ones too
        return table[0] + (table[1] - table[0]) * tf.cast(y, tf.float32)
    return tf.gather(table, tf.cast(y, tf.int32))
