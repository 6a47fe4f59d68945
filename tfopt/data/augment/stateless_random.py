"""Random numbers that are a pure function of (seed, epoch, example).

A hash of counters instead of `tf.random.stateless_uniform`: one expression serves one example or a
batch of examples with a key each. The hash is the output function of SplitMix64, which passes BigCrush.

Reference: Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014.
"""

import tensorflow as tf

_GAMMA = 0x9E3779B97F4A7C15
_DRAWS_PER_PURPOSE = 64


def make_key(seed: int, epoch: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """uint64 of the shape of `index`: the key of each example, from its epoch and its number."""
    key = _mix(tf.constant(seed % 2**64, tf.uint64) + _gamma())
    for part in (epoch, index):
        key = _mix(tf.bitwise.bitwise_xor(key, tf.cast(part, tf.uint64)) + _gamma())
    return key


def uniform(key: tf.Tensor, purpose: int, count: int) -> tf.Tensor:
    """float32 [..., count] in [0, 1), independent for each key and purpose.

    Args:
        key: uint64 [...] from `make_key`.
        purpose: Number of the use, so that two uses of one key differ.
        count: Draws for each key, at most 64.
    """
    counters = tf.range(1, count + 1, dtype=tf.int64) + purpose * _DRAWS_PER_PURPOSE
    bits = _mix(key[..., None] + tf.cast(counters, tf.uint64) * _gamma())
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(40, tf.uint64)), tf.float32) * 2.0**-24


def _gamma() -> tf.Tensor:
    return tf.constant(_GAMMA, tf.uint64)


def _mix(z: tf.Tensor) -> tf.Tensor:
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = _fold(z, shift) * tf.constant(factor, tf.uint64)
    return _fold(z, 31)


def _fold(z: tf.Tensor, shift: int) -> tf.Tensor:
    return tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, tf.constant(shift, tf.uint64)))
