"""A few training images that stand for all of them, for statistics and calibration.

The first images of a folder are those of its first classes, and statistics of batch normalization taken from
them are wrong for the other classes.
"""

import numpy as np
import tensorflow as tf

from tfopt.data.random_access import random_access_of

WINDOW = 16  # times as many examples of a stream are read as are taken


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Numbers of `count` examples (or all) in an order in which every stretch has all classes in proportion.

    Example r of the n of a class, in random order, stands at (r + u) / n, with u uniform in [0, 1). The first
    one of each class comes within the first `count`, as far as there is room for all classes.

    Args:
        labels: Integer class of each example. Labels of another form are taken in random order.
        count: Number of examples to choose, >= 1.
        seed: Integer >= 0.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(labels))
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return order[:count]
    place = random.uniform(size=len(labels))
    share = min(1.0, count / max(1, len(labels)))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        places = (np.arange(len(members)) + place[members]) / len(members)
        places[0] = place[members[0]] * min(1 / len(members), share)
        place[members] = places
    return np.argsort(place, kind="stable")[:count]


def sampled(dataset: tf.data.Dataset, count: int, seed: int) -> tf.data.Dataset:
    """Unbatched (image, label), or (image, label, weight), of the examples that `stratified` chooses.

    Of a dataset that can only be read from its beginning, the first `WINDOW * count` examples are read and
    random ones of them taken, so that only those are in memory.

    Args:
        dataset: Unbatched (image, label), or (image, label, weight).
        count: Number of examples, >= 1.
        seed: Integer >= 0.
    """
    source = random_access_of(dataset)
    if source is None:
        return _sampled_stream(dataset, count, seed)
    numbers = stratified(source.labels, count, seed)

    def read(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        index = source.locate(number, tf.constant(0, tf.int64))
        return source.image(index), *source.targets_at(index)

    chosen = tf.data.Dataset.from_tensor_slices(numbers.astype(np.int64))
    return chosen.map(read, num_parallel_calls=tf.data.AUTOTUNE)


def _sampled_stream(dataset: tf.data.Dataset, count: int, seed: int) -> tf.data.Dataset:
    length = int(dataset.cardinality())
    if length < 0:  # unknown: random places might lie behind its end
        return dataset.shuffle(WINDOW * count, seed, reshuffle_each_iteration=False).take(count)
    window = min(length, WINDOW * count)
    is_chosen: np.ndarray = np.zeros(window, bool)
    is_chosen[np.random.default_rng(seed).permutation(window)[:count]] = True
    places = tf.constant(is_chosen)
    chosen = dataset.take(window).enumerate().filter(lambda place, _: tf.gather(places, place))
    plain = chosen.map(lambda _, example: example)
    plain = plain.apply(tf.data.experimental.assert_cardinality(min(count, window)))
    return plain.shuffle(count, seed, reshuffle_each_iteration=False)
