"""Class balance and batch-size ramps: exact counts, every example, every worker."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.data import Augment, balance, class_weights, load, pipeline, ramped_batches, weighted
from tfopt.schedules import GeometricRamp, LinearRamp, Steps

LABELS = np.repeat([0, 1, 2], [50, 10, 4])
IMAGES = np.arange(64).reshape(64, 1, 1, 1) * np.ones((1, 2, 2, 1))
SOFT = np.eye(3)[LABELS] * 0.9 + 0.1 / 3


@pytest.fixture
def data():
    return load((IMAGES, LABELS), validation_split=0, test_split=0)


def epoch(batches):
    pairs = [(images.numpy()[:, 0, 0, 0].astype(int), labels.numpy()) for images, labels in batches]
    return tuple(np.concatenate(part) for part in zip(*pairs))


@pytest.mark.parametrize("method", ["oversample", "undersample", "rejection"])
@pytest.mark.parametrize("target", [None, [0.5, 0.3, 0.2]])
def test_counts_are_exact_in_every_epoch_and_over_workers(data, method, target):
    total = {("oversample", True): 150, ("oversample", False): 100, ("under", True): 12, ("under", False): 20}
    size = total[("oversample" if method == "oversample" else "under", target is None)]
    wanted = np.array([size / 3] * 3 if target is None else np.array(target) * size).round().tolist()
    balanced = data.balanced(method, target=target)
    assert balanced.class_counts["train"] == wanted and data.class_counts["train"] == [50, 10, 4]
    batches = pipeline(balanced.train, 2)
    parts = [pipeline(balanced.train, 1, shard=(i, 2)) for i in range(2)]
    seen = []
    for _ in range(2):
        numbers, labels = epoch(batches)
        assert np.bincount(labels).tolist() == wanted and (LABELS[numbers] == labels).all()
        sharded = np.concatenate([epoch(part)[0] for part in parts])
        assert sorted(sharded) == sorted(numbers)
        seen.append(sorted(numbers))
        copies = np.bincount(numbers, minlength=64)
        for label in range(3):
            assert np.ptp(copies[label == LABELS]) <= 1
    assert (seen[0] == seen[1]) == (method != "rejection")


@pytest.mark.parametrize("method", ["oversample", "undersample"])
def test_streams_and_soft_labels(method):
    for labels in (SOFT.astype(np.float32), LABELS):
        stream = tf.data.Dataset.from_tensor_slices((IMAGES, labels)).map(lambda x, y: (x, y))
        rows = list(balance(stream, method))
        assert len(rows) == len(balance(stream, method))
        mass = sum(np.eye(3)[y] if y.shape == () else y.numpy() for _, y in rows) / len(rows)
        np.testing.assert_allclose(mass, 1 / 3, atol=1e-6)


@pytest.mark.parametrize("method", ["oversample", "undersample"])
def test_soft_labels_meet_the_target_over_several_workers(method):
    soft = SOFT.astype(np.float32)
    stream = tf.data.Dataset.from_tensor_slices((IMAGES.astype(np.uint8), soft))
    balanced = balance(stream, method, target=[0.5, 0.25, 0.25])
    parts = [pipeline(balanced, 1, shard=(worker, 3)) for worker in range(3)]
    for _ in range(2):
        mass = sum(sum(labels.numpy()[0] for _, labels in part) for part in parts)
        left_out = len(balanced) - sum(map(len, parts))
        assert left_out < 3 and mass.sum() == pytest.approx(len(balanced) - left_out)
        np.testing.assert_allclose(mass / mass.sum(), [0.5, 0.25, 0.25], atol=0.02 + left_out / mass.sum())


def test_rejection_of_a_stream_meets_the_target_in_the_mean():
    labels = np.repeat([0, 1], [3000, 1000])
    kept = balance(tf.data.Dataset.from_tensor_slices((labels, labels)), "rejection")
    first, second = ([int(x) for x, _ in kept] for _ in range(2))
    assert abs(np.mean(first) - 0.5) < 0.04 and first != second


def test_weights():
    assert class_weights([100, 10]) == pytest.approx({0: 2 / 11, 1: 20 / 11})
    effective = class_weights([100, 10], "effective_number", beta=0.9)
    raw = [0.1 / (1 - 0.9**100), 0.1 / (1 - 0.9**10)]
    assert effective == pytest.approx({0: 2 * raw[0] / sum(raw), 1: 2 * raw[1] / sum(raw)})
    weights = {0: 1.0, 1: 3.0}
    soft = tf.data.Dataset.from_tensors((np.zeros((2, 1)), np.array([[0.5, 0.5], [0.0, 1.0]])))
    hard = tf.data.Dataset.from_tensors((np.zeros((2, 1)), np.array([0, 1])))
    assert next(iter(weighted(soft, weights)))[2].numpy().tolist() == [2.0, 3.0]
    assert next(iter(weighted(hard, weights)))[2].numpy().tolist() == [1.0, 3.0]


def test_refused_balance(data):
    for options in ({"method": "smote"}, {"target": [1, 1]}, {"target": [1, 0, 1]}, {"seed": -1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            balance(data.train, **options)
    with pytest.raises(ValueError, match="counts"):
        class_weights([3, 0])


@pytest.mark.parametrize(
    "schedule",
    [GeometricRamp(8, 32, ramp_samples=120), Steps({0: 16, 50: 8, 90: 16}), LinearRamp(4, 12, 100, 4)],
)
def test_ramps_deliver_every_example_in_the_scheduled_sizes(schedule):
    batches = ramped_batches(tf.data.Dataset.range(100), schedule, epochs=3)
    rows = [batch.numpy() for batch in batches]
    assert np.concatenate(rows).tolist() == list(range(100)) * 3
    assert len(rows) == len(batches) == schedule.total_steps(300)
    seen = 0
    for row in rows[:-1]:
        assert len(row) == schedule(seen)
        seen += len(row)
    assert batches.steps_per_epoch == -(-len(rows) // 3)


def test_a_ramp_in_the_pipeline_counts_updates_in_fit(data):
    ramp = GeometricRamp(4, 16, ramp_samples=64)
    batches = pipeline(data.train, ramp, epochs=4, augment=Augment(mixup=0.2), classes=3)
    numbers = np.concatenate([epoch(pipeline(data.train, ramp, epochs=4))[0]])
    assert np.bincount(numbers).tolist() == [4] * 64
    net = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    net.compile("sgd", "categorical_crossentropy")
    net.fit(batches, epochs=4, steps_per_epoch=batches.steps_per_epoch, verbose=0)
    assert int(net.optimizer.iterations) == ramp.total_steps(256) == len(batches)
    with pytest.raises(ValueError, match="epochs"):
        pipeline(data.train, ramp)
    with pytest.raises(ValueError, match="cardinality"):
        ramped_batches(tf.data.Dataset.range(9).filter(lambda x: x > 1), ramp)


def test_weights_are_for_every_label(data):
    for wrong in ({1: 1.0, 2: 2.0}, {"a": 1.0, "b": 2.0}):
        with pytest.raises(ValueError, match="`weights` must be a dict of the labels 0"):
            weighted(pipeline(data.train, 4), wrong)
