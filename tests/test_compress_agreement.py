"""Which channels of an output count as lost."""

import numpy as np

from tfopt.compress._agreement import PROBABILITY_STEP, agreements
from tfopt.compress._matching import Port

RNG = np.random.default_rng(0)
CLASSES = RNG.permutation(np.arange(48) % 3)  # of four: class 3 is not among the samples


def probabilities(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def compared(expected, received, step=PROBABILITY_STEP):
    port = Port("probabilities", (expected.shape[1],), "float32")
    (found,) = agreements([port], [expected], [received], "int8", [step])
    return found


def lost(expected, received):
    return compared(expected, received).lost


def test_a_class_that_no_sample_shows_is_not_lost_by_the_noise_of_the_others():
    logits = 3.0 * np.eye(4)[CLASSES]
    expected = probabilities(logits)
    received = probabilities(logits + RNG.normal(scale=0.3, size=logits.shape))
    noise = np.square(expected - received).mean(axis=0)
    assert noise[3] > np.var(expected, axis=0)[3] and np.sqrt(noise[3]) > 1.5 * PROBABILITY_STEP
    assert lost(expected, received) == ()


def test_a_class_that_the_file_never_names_is_lost():
    logits = 3.0 * np.eye(4)[CLASSES]
    received = logits.copy()
    received[:, 1] = 0.0
    assert 1 in lost(probabilities(logits), probabilities(received))


def test_probabilities_of_many_classes_that_a_file_computes_in_float_are_judged_together():
    # As of a classifier of photographs: each of 16 samples shows one class, with some of a hundred others.
    rows = np.arange(16)
    logits = RNG.normal(size=(16, 100))
    logits[rows, 5 * rows] += RNG.uniform(4.0, 9.0, 16)
    expected = probabilities(logits)
    received = probabilities(logits + RNG.normal(scale=0.3, size=logits.shape))
    found = compared(expected, received, step=0.0)
    assert found.is_good, found.sentence()
    received[:, 5] = 0.0
    received /= received.sum(axis=1, keepdims=True)
    found = compared(expected, received, step=0.0)
    assert found.lost == (5,) and not found.shares_a_scale  # no class can be split off from a softmax
