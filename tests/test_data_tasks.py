"""Several labels per image, regression and sample weights: from arrays through caches to batches."""

import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfopt.data import Augment, load, pipeline
from tfopt.data.split import strata, stratified_split

COUNT = 40
IMAGES = (np.arange(COUNT).reshape(COUNT, 1, 1, 1) * np.ones((1, 4, 4, 3))).astype(np.uint8)
SEVERAL = np.stack([np.arange(COUNT) % 2, np.arange(COUNT) % 3 == 0, np.arange(COUNT) % 5 == 0], 1)
NUMBERS = np.stack([np.arange(COUNT) / 4, -np.arange(COUNT) / 8], 1)
LABELS = {"classification": np.arange(COUNT) % 4, "multilabel": SEVERAL.astype(int), "regression": NUMBERS}
WEIGHTS = np.arange(COUNT) / 10 + 0.5


def loaded(task, *weights, **options):
    options = {"validation_split": 0, "test_split": 0} | options
    return load((IMAGES, LABELS[task], *weights), task=task, **options)


def rows(batches):
    return tuple(np.concatenate([np.asarray(part) for part in parts]) for parts in zip(*batches))


def test_each_task_says_what_its_labels_are():
    several, numbers = loaded("multilabel"), loaded("regression", class_names=("x", "y"))
    assert several.task == "multilabel" and several.class_names == ("0", "1", "2")
    assert several.class_counts == {"train": [20, 14, 8]} and several.example_counts == {"train": 40}
    assert several.train.element_spec[1] == tf.TensorSpec((3,), tf.float32)
    assert numbers.class_names == ("x", "y") and numbers.class_counts == {"train": [40]}
    assert "arrays: train (40, 4, 4, 3)" in numbers.source
    one = load((IMAGES, np.arange(COUNT) / 3))
    assert one.task == "regression" and one.class_names == ("target",)  # decimals are no classes
    assert not one.has_sample_weights and loaded("regression", WEIGHTS).has_sample_weights
    assert load("digits").task == "classification" and load("digits").source == "digits"


@pytest.mark.parametrize("cache", ["memory", "disk", None])
@pytest.mark.parametrize("task", LABELS)
def test_labels_and_weights_stay_with_their_image(task, cache):
    data = loaded(task, WEIGHTS).resized(6, cache=cache)
    for augment in (None, Augment(flip="both")):
        for shard in ((0, 1), (1, 2)):
            options = {"augment": augment, "shard": shard, "cache": cache, "boxes": False}
            images, labels, weights = rows(pipeline(data.train, 5, **options))
            numbers = images[:, 0, 0, 0].astype(int)
            np.testing.assert_allclose(labels, LABELS[task][numbers])
            np.testing.assert_allclose(weights, WEIGHTS[numbers].astype(np.float32))
            assert len(set(numbers)) == COUNT // shard[1]
    batches = pipeline(data.train, 5, cache=cache)
    whole = list(batches)
    batches.position.set(epoch=0, batch=6)
    resumed = list(batches)
    assert not any(np.any(part) for part in resumed[5])
    for part, expected in zip(resumed[6], whole[6], strict=True):
        np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_splits_are_stratified(task):
    data = loaded(task, validation_split=0.2, test_split=0.2)
    assert 6 <= data.example_counts["test"] <= 10
    labels = {name: np.stack([label for _, label in split]) for name, split in data.splits().items()}
    for split in ("validation", "test"):
        if task == "multilabel":
            assert (labels[split].sum(0) > 0).all()
        else:
            assert np.ptp(labels[split][:, 0]) > 0.6 * np.ptp(NUMBERS[:, 0])


def test_a_rare_label_reaches_every_split():
    labels = np.zeros((100, 3), np.float32)
    labels[:, 0], labels[::2, 1], labels[10:13, 2] = 1, 1, 1
    parts = stratified_split(strata(labels), {"validation": 0.1, "test": 0.1}, seed=0)
    assert all(labels[indices].sum(0)[2] == 1 for indices in parts.values())


def test_mixing_of_weighted_examples_weights_their_losses():
    data = loaded("multilabel", WEIGHTS)
    options = {"augment": Augment(mixup=1.0), "shuffle": False}
    plain_images, plain = rows(pipeline(loaded("multilabel").train, 2, **options))
    images, labels, weights = rows(pipeline(data.train, 2, **options))
    np.testing.assert_array_equal(images, plain_images)  # the shares are those without weights
    pairs = np.arange(COUNT) ^ 1
    share = (images[:, 0, 0, 0] - pairs) / (np.arange(COUNT) - pairs)
    own, other = share * WEIGHTS, (1 - share) * WEIGHTS[pairs]
    np.testing.assert_allclose(weights, own + other, rtol=1e-4)
    expected = (own[:, None] * SEVERAL + other[:, None] * SEVERAL[pairs]) / (own + other)[:, None]
    np.testing.assert_allclose(labels, expected, atol=1e-4)
    np.testing.assert_allclose(
        plain, share[:, None] * SEVERAL + (1 - share)[:, None] * SEVERAL[pairs], atol=1e-4
    )


def test_numbers_are_mixed_by_mixup_and_never_by_cutmix():
    for data in (loaded("regression"), loaded("regression").resized(6)):
        images, labels = rows(pipeline(data.train, 4, augment=Augment(mixup=1.0)))
        np.testing.assert_allclose(labels[:, 0], images[:, 0, 0, 0] / 4, atol=1e-3)
        with pytest.raises(ValueError, match=r"`cutmix` must be None for regression"):
            pipeline(data.train, 4, augment=Augment(cutmix=1.0))
    assert rows(pipeline(loaded("multilabel").train, 4, augment=Augment(cutmix=1.0)))[1].shape == (COUNT, 3)


def test_only_classes_are_balanced():
    for task in ("multilabel", "regression"):
        with pytest.raises(ValueError, match=f"classification. Received.*{task}.*weights"):
            loaded(task).balanced()
    balanced = load((IMAGES, np.arange(COUNT) // 30, WEIGHTS), validation_split=0, test_split=0).balanced()
    assert balanced.class_counts["train"] == [30, 30]
    images, labels, weights = rows(pipeline(balanced.train, 8))
    np.testing.assert_array_equal(labels, images[:, 0, 0, 0] // 30)
    np.testing.assert_allclose(weights, images[:, 0, 0, 0] / 10 + 0.5, rtol=1e-6)


@pytest.mark.parametrize(
    "arrays, options, text",
    [
        ((IMAGES, SEVERAL.astype(int)), {}, "task='multilabel'"),
        ((IMAGES, np.arange(COUNT) % 2 + 0.0), {}, r"y\.astype\(int\)"),
        ((IMAGES, np.array(["a", "b"] * 20)), {}, "numpy.unique"),
        ((IMAGES, np.arange(COUNT) % 2 - 1), {}, "Number the classes from 0"),
        ((IMAGES, NUMBERS), {"task": "multilabel"}, "zeros and ones"),
        ((IMAGES, NUMBERS * np.nan), {"task": "regression"}, "finite numbers"),
        ((IMAGES, NUMBERS), {"task": "regression", "class_names": ("x",)}, "2 names"),
        ((IMAGES, SEVERAL * [1, 1, 0]), {"task": "multilabel"}, r"Classes without images: \['2'\]"),
        ((IMAGES, NUMBERS, WEIGHTS[:3]), {}, "40 numbers"),
        ((IMAGES, NUMBERS, -WEIGHTS), {}, ">= 0"),
        ((IMAGES, NUMBERS), {"task": "detection"}, "`task` must be one of"),
        ((IMAGES, LABELS["classification"]), {"class_names": ("a", "b\nc", "d", "e")}, "in one line"),
        ((IMAGES, LABELS["classification"]), {"class_names": ("a", "b", "a", "e")}, "different names"),
        ({"train": (IMAGES, NUMBERS, WEIGHTS), "test": (IMAGES, NUMBERS)}, {}, "in all splits or in none"),
    ],
)
def test_refused_labels(arrays, options, text):
    with pytest.raises(ValueError, match=text):
        load(arrays, **options)


def test_the_fingerprint_follows_images_labels_and_splits(tmp_path):
    base = loaded("regression").fingerprint()
    assert base == loaded("regression").fingerprint() and len(base) == 32
    changed = IMAGES.copy()
    changed[7, 0, 0, 0] += 1
    others = [
        load((changed, NUMBERS), validation_split=0, test_split=0),
        load((IMAGES, NUMBERS + 0.5), validation_split=0, test_split=0),
        loaded("regression", WEIGHTS),
        loaded("regression", validation_split=0.1),
        loaded("regression", class_names=("a", "b")),
    ]
    prints = {data.fingerprint() for data in others}
    assert len(prints) == len(others) and base not in prints
    balanced = loaded("classification").balanced("undersample", target=[1, 2, 1, 1])
    assert balanced.fingerprint() != loaded("classification").fingerprint()


def test_the_fingerprint_of_files_knows_content_or_times(tmp_path):
    for label, color in (("a", 10), ("b", 200)):
        (tmp_path / "one" / label).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (8, 8), (color, i, 0)).save(tmp_path / "one" / label / f"{i}.png")
            os.utime(tmp_path / "one" / label / f"{i}.png", (1, 1))

    def prints(folder="one"):
        data = load(tmp_path / folder)
        return data.fingerprint(), data.fingerprint(content=True)

    times, content = prints()
    os.utime(tmp_path / "one" / "a" / "2.png", (5, 5))
    assert prints()[0] != times and prints()[1] == content
    os.utime(tmp_path / "one" / "a" / "2.png", (1, 1))
    (tmp_path / "one").rename(tmp_path / "two")
    assert prints("two") == (times, content)
    (tmp_path / "two" / "a").rename(tmp_path / "two" / "c")  # the labels are swapped, the counts stay
    (tmp_path / "two" / "b").rename(tmp_path / "two" / "a")
    (tmp_path / "two" / "c").rename(tmp_path / "two" / "b")
    assert not set(prints("two")) & {times, content}
