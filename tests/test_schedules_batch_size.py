"""Batch-size schedules: closed forms against a hand-written loop, known ramps, bad schedules."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt import schedules as S


def asked(phases, samples):
    return [size for first, size in phases if first <= samples][-1]


RANDOM = np.random.default_rng(0)
SCHEDULES = [
    S.LinearRamp(8, 64, 1000, round_to=8),
    S.LinearRamp(3, 3, 10),
    S.LinearRamp(1, 9, 4),
    S.GeometricRamp(16, 128, 3001),
    S.GeometricRamp(5, 5, 1),
    S.GeometricRamp(2, 54, 7, factor=3),
    S.Steps({0: 32, 10: 4, 11: 5, 500: 7}),
    *(
        S.Steps(
            {0: 7} | {int(k): int(v) for k, v in zip(RANDOM.integers(1, 300, 6), RANDOM.integers(1, 40, 6))}
        )
        for _ in range(5)
    ),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_closed_forms_equal_a_loop(schedule):
    samples, sizes = 0, []
    for step in range(300):
        assert schedule.samples_seen(step) == samples
        size = schedule(samples)
        assert schedule(samples + size - 1) == size, "one batch, two sizes"
        assert schedule.total_steps(samples) == step
        assert schedule.total_steps(samples + 1) == step + 1
        assert schedule.total_steps(samples + size) == step + 1
        sizes.append(size)
        samples += size
    position = tf.range(samples, dtype=tf.int64)
    assert schedule(position).numpy().tolist() == [size for size in sizes for _ in range(size)]
    seen = tf.function(schedule.samples_seen)(tf.range(301, dtype=tf.int64))
    assert seen.numpy().tolist() == np.cumsum([0, *sizes]).tolist()


def test_a_phase_closes_on_a_whole_batch():
    schedule = S.Steps({0: 8, 20: 16, 30: 4})
    assert [schedule(s) for s in (0, 19, 20, 23, 24, 39, 40)] == [8, 8, 8, 8, 16, 16, 4]
    assert schedule.boundaries.tolist() == [24, 40]


def test_megatron_gives_megatrons_sizes():
    start, increment, ramp_samples, end = 32, 16, 1000, 128
    schedule = S.megatron(start, increment, ramp_samples, end)
    consumed = 0
    while consumed < 2000:
        per_increment = ramp_samples / ((end - start) / increment)
        expected = (
            end if consumed > ramp_samples else min(start + int(consumed / per_increment) * increment, end)
        )
        assert schedule(consumed) == expected
        consumed += expected


def test_growth_instead_of_decay_keeps_the_noise_scale():
    sizes, rate = S.instead_of_decay(0.5, 10, [100, 200, 300], factor=5, maximum=250)
    for samples, size, expected in ((0, 10, 0.5), (100, 50, 0.5), (200, 250, 0.5), (450, 250, 0.1)):
        assert sizes(samples) == size
        assert float(rate(sizes.total_steps(samples))) == pytest.approx(expected)
    sizes, rate = S.instead_of_decay(0.5, 10, [100])
    assert float(rate(10_000)) == 0.5


def test_adabatch_doubles_and_decays():
    sizes, rate = S.adabatch(0.4, 8, [80, 160], decay=0.75)
    assert [sizes(s) for s in (0, 80, 160)] == [8, 16, 32]
    assert [float(rate(t)) for t in (0, 9, 10, 15)] == pytest.approx([0.4, 0.4, 0.3, 0.225])


def test_rounding_for_replicas():
    schedule = S.Steps({0: 1, 50: 10, 100: 16})
    assert schedule.rounded_to(4).sizes.tolist() == [4, 8, 16]
    with pytest.raises(ValueError, match=r"multiple of the 4 replicas.*rounded_to\(4\)"):
        schedule.check_sizes(replicas=4)
    with pytest.raises(ValueError, match="at most the dataset's 12 samples"):
        schedule.check_sizes(samples=12)
    assert schedule.check_sizes(samples=16) is schedule


@pytest.mark.parametrize("schedule", SCHEDULES[:7])
def test_config_round_trip(schedule):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert copy.sizes.tolist() == schedule.sizes.tolist()
    assert copy.first_samples.tolist() == schedule.first_samples.tolist()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: S.LinearRamp(0, 8, 10), ValueError, "start"),
        (lambda: S.LinearRamp(16, 8, 10), ValueError, "end"),
        (lambda: S.LinearRamp(4, 10, 10, round_to=4), ValueError, "end.*round_to=4"),
        (lambda: S.LinearRamp(4, 8, 0), ValueError, "ramp_samples"),
        (lambda: S.GeometricRamp(16, 100, 10), ValueError, "whole power of 2"),
        (lambda: S.GeometricRamp(16, 32, 10, factor=1), ValueError, "factor"),
        (lambda: S.GeometricRamp(16.0, 32, 10), TypeError, "start"),
        (lambda: S.Steps({}), ValueError, "at 0 samples"),
        (lambda: S.Steps({5: 3}), ValueError, "at 0 samples"),
        (lambda: S.Steps({0: 0}), ValueError, "sizes"),
        (lambda: S.Steps({0: 4, -1: 4}), ValueError, "samples seen"),
        (lambda: S.Steps([4]), TypeError, "Mapping"),
        (lambda: S.Steps({0: 4})(1.5), TypeError, "position"),
        (lambda: S.Steps({0: 4})(-1), ValueError, "position"),
        (lambda: S.instead_of_decay(0.1, 8, [20, 10]), ValueError, "increasing"),
        (lambda: S.adabatch(0.1, 8, [20], decay=0.0), ValueError, "decay"),
        (lambda: S.doubling(16, 128, 1000, share=0.0), ValueError, "share"),
    ],
)
def test_bad_schedules_are_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()
