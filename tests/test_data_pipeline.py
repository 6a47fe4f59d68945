"""`pipeline`: the order, the epochs, the position and what `fit` makes of them."""

import gc
import resource
import tempfile

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfopt.data import Augment, load, pipeline
from tfopt.data.reader import Reader
from tfopt.schedules import Steps

COUNT = 50


@pytest.fixture
def numbers():
    """Images whose pixels are the number of the example."""
    x = np.arange(COUNT).reshape(COUNT, 1, 1, 1) * np.ones((1, 6, 6, 3))
    return load((x, np.arange(COUNT) % 5), validation_split=0, test_split=0).train


def seen(batches):
    return [images.numpy()[:, 0, 0, 0].astype(int).tolist() for images, _ in batches]


def flat(batches):
    return [number for batch in seen(batches) for number in batch]


def test_batches(numbers):
    batches = pipeline(numbers, 16)
    assert len(batches) == 4 and [len(batch) for batch in seen(batches)] == [16, 16, 16, 2]
    images, labels = batches.element_spec
    assert images.shape.as_list() == [None, 6, 6, 3] and images.dtype == tf.float32
    assert labels.dtype == tf.int64
    for image, label in batches.unbatch():
        assert int(image[0, 0, 0]) % 5 == int(label)
    assert len(pipeline(numbers, 16, drop_remainder=True)) == 3
    assert flat(pipeline(numbers, 16, shuffle=False)) == list(range(COUNT))


def test_each_epoch_is_another_permutation_and_reproducible(numbers):
    batches = pipeline(numbers, 16, seed=4)
    first, second = flat(batches), flat(batches)
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert first != second
    assert flat(pipeline(numbers, 7, seed=4)) == first  # whatever the batch size
    assert flat(pipeline(numbers, 16, seed=4, first_epoch=1)) == second
    assert flat(pipeline(numbers, 16, seed=4, epochs=2)) == first + second
    assert flat(pipeline(numbers, 16, seed=5)) != first
    assert len(pipeline(numbers, 16, epochs=3)) == 12


def test_position_reaches_any_batch_without_reading_what_is_before(numbers):
    batches = pipeline(numbers, 16, seed=4)
    epochs = [seen(batches) for _ in range(3)]
    batches.position.set(epoch=2, batch=2)
    resumed = seen(batches)
    assert resumed[:2] == [[0] * 16, [0] * 16] and resumed[2:] == epochs[2][2:]
    assert int(batches.position.epoch) == 3
    assert seen(batches) == seen(pipeline(numbers, 16, seed=4, first_epoch=3))


@pytest.mark.parametrize("shuffle", [True, False])
def test_shards_share_every_epoch(numbers, shuffle):
    parts = [pipeline(numbers, 6, shard=(i, 4), shuffle=shuffle) for i in range(4)]
    whole = pipeline(numbers, 24, shuffle=shuffle, drop_remainder=True)
    for _ in range(2):
        batches = [seen(part) for part in parts]
        assert [[number for part in parts for number in part] for parts in zip(*batches)] == seen(whole)


def test_augmentation_depends_on_seed_epoch_and_index_only(numbers):
    augment = Augment(rotate=90, shift=0.3, fill_mode="constant")

    def pixels(**options):
        options = {"batch_size": 16, "seed": 4, "augment": augment} | options
        return np.concatenate([images.numpy() for images, _ in pipeline(numbers, **options)])

    base = pixels()
    assert np.array_equal(base, pixels())
    assert np.array_equal(base, pixels(batch_size=5))
    assert np.array_equal(base, pixels(cache="disk"))
    in_order = pixels(shuffle=False)
    order = flat(pipeline(numbers, 16, seed=4))
    assert np.array_equal(base, in_order[order])
    assert not np.array_equal(base, pixels(augment=augment, first_epoch=1))
    assert not np.array_equal(base, pixels(seed=5))
    views = pixels(shuffle=False, epochs=3)
    assert np.array_equal(views[:COUNT], in_order) and not np.array_equal(views[COUNT:][:COUNT], in_order)


def test_mixing_does_not_depend_on_batch_size_or_shards(numbers):
    options = {"augment": Augment(mixup=1.0, cutmix=1.0), "classes": 5}
    whole = [*pipeline(numbers, 24, drop_remainder=True, **options)]
    halves = [[*pipeline(numbers, 12, shard=(i, 2), **options)] for i in range(2)]
    for (images, labels), *parts in zip(whole, *halves):
        assert np.array_equal(images, np.concatenate([part[0] for part in parts]))
        assert np.array_equal(labels, np.concatenate([part[1] for part in parts]))


def test_images_grow_from_epoch_to_epoch(numbers):
    sizes = {2: (8, 10), 0: 4, 1: 4, 3: 6}
    options = {"seed": 4, "augment": Augment(flip="both")}
    batches = pipeline(numbers, 16, image_size=sizes, **options)
    assert batches.element_spec[0].shape.as_list() == [None, None, None, 3] and len(batches) == 4
    for epoch, size in enumerate([(4, 4), (4, 4), (8, 10), (6, 6), (6, 6)]):
        alone = pipeline(numbers, 16, image_size=size, first_epoch=epoch, **options)
        for (images, labels), (expected, expected_labels) in zip(batches, alone, strict=True):
            np.testing.assert_array_equal(images, expected)
            np.testing.assert_array_equal(labels, expected_labels)
    whole = seen(pipeline(numbers, 16, image_size=4, first_epoch=1, **options))
    batches.position.set(epoch=1, batch=3)
    assert seen(batches) == [[0] * 16] * 3 + whole[3:]
    stream = pipeline(numbers, 25, image_size={0: 4, 1: 6}, epochs=3)
    assert [images.shape[1] for images, _ in stream] == [4, 4, 6, 6, 6, 6] and len(stream) == 6


def test_a_model_trains_on_growing_images_without_a_second_trace(numbers):
    traces = []

    class Counting(keras.Sequential):
        def call(self, inputs, training=None):
            traces.append(inputs.shape)
            return super().call(inputs, training=training)

    net = Counting([keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)])
    net.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    batches = pipeline(numbers, 10, image_size={0: 4, 1: 6, 2: 8})
    net.fit(batches, epochs=1, verbose=0)
    count = len(traces)
    net.fit(batches, epochs=3, verbose=0)
    assert int(net.optimizer.iterations) == 20 and len(traces) == count


def model():
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(5)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.SGD(1e-5), loss)
    return net


class Epochs(keras.callbacks.Callback):
    """Sets the epoch and counts batches."""

    def __init__(self, position):
        super().__init__()
        self.position, self.batches = position, []

    def on_epoch_begin(self, epoch, logs=None):
        self.position.set(epoch)
        self.batches.append(0)

    def on_train_batch_end(self, batch, logs=None):
        self.batches[-1] += 1


def test_fit_and_replicas_see_the_same_epochs(numbers, two_replicas):
    def trained(strategy):
        batches = pipeline(numbers, 10)
        with strategy.scope():
            net = model()
        counter = Epochs(batches.position)
        net.fit(batches, epochs=3, verbose=0, callbacks=[counter])
        assert counter.batches == [5, 5, 5]
        return net.get_weights()

    one, two = trained(tf.distribute.get_strategy()), trained(two_replicas)
    by_hand = model()
    for epoch in range(3):
        by_hand.fit(pipeline(numbers, 10, first_epoch=epoch, epochs=1), verbose=0)
    for a, b, c in zip(one, by_hand.get_weights(), two):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options, name",
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 51, "drop_remainder": True}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"epochs": 0}, "epochs"),
        ({"first_epoch": -1}, "first_epoch"),
        ({"image_size": (4, 0)}, "image_size"),
        ({"image_size": (4, 5, 6)}, "image_size"),
        ({"image_size": {1: 4}}, "image_size"),
        ({"image_size": {0: 4, -1: 6}}, "image_size"),
        ({"image_size": {0: 4, 1: 6}, "batch_size": Steps({0: 5, 20: 10}), "epochs": 2}, "batch_size"),
        ({"cache": "ram"}, "cache"),
        ({"shard": (2, 2)}, "shard"),
        ({"augment": Augment(mixup=1.0)}, "classes"),
        ({"augment": Augment(mixup=1.0), "classes": 5, "batch_size": 5}, "batch_size"),
    ],
)
def test_refused_arguments(numbers, options, name):
    with pytest.raises(ValueError, match=f"`{name}"):
        pipeline(numbers, **({"batch_size": 10} | options))


@pytest.mark.parametrize("augment", [None, Augment(rotate=5)])
@pytest.mark.parametrize("cache", ["memory", "disk", None])
def test_what_is_no_longer_used_is_given_back(numbers, tmp_path, monkeypatch, cache, augment):
    def files():
        return list(tmp_path.glob("tfopt-*"))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    others = [item for item in gc.get_objects() if isinstance(item, Reader)]  # of other tests of this process
    iterator = iter(pipeline(numbers, 16, image_size=9, cache=cache, augment=augment))  # the rest is gone
    gc.collect()
    assert len(list(iterator)) == 4 and not files()  # a file without a name does not outlive a kill
    before = {id(item) for item in gc.get_objects() if isinstance(item, Reader)} - set(map(id, others))
    del iterator
    gc.collect()
    assert not files()
    assert before and not before & {id(item) for item in gc.get_objects() if isinstance(item, Reader)}


def test_a_full_disk_is_an_error_and_leaves_no_file(numbers, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))  # as a small disk
    try:
        with pytest.raises(OSError, match=r"cache='disk' needs 1 MB in .*Make room"):
            pipeline(numbers, 16, image_size=90, cache="disk")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    assert not list(tmp_path.glob("tfopt-*"))
    assert len(list(pipeline(numbers, 16, image_size=90, cache="disk"))) == 4


def test_data_that_are_no_single_images_with_labels_are_refused(numbers):
    arrays = np.zeros((4, 6, 6, 3), np.uint8), np.arange(4)
    slices = tf.data.Dataset.from_tensor_slices
    with pytest.raises(TypeError, match=r"`dataset` must be .*data\.train"):
        pipeline(load("digits"), 2)
    labels = {"a": arrays[1]}
    for wrong in (slices(arrays[0]), slices((arrays[0], labels)), slices(arrays).batch(2)):
        with pytest.raises(ValueError, match=r"`dataset` must be of single \(image"):
            pipeline(wrong, 2, image_size=6)
    with pytest.raises(ValueError, match="`dataset` must be with images"):
        pipeline(numbers.take(0), 2)


def test_mixing_does_not_lose_labels(numbers):
    soft = tf.data.Dataset.from_tensor_slices((np.zeros((4, 6, 6, 3), np.uint8), np.eye(4, dtype="f4")))
    for dataset, right, wrong in ((numbers, (5, 6), (4,)), (soft, (4,), (3, 5))):
        for classes in right:
            *_, (_, labels) = pipeline(dataset, 2, augment=Augment(mixup=1), classes=classes)
            np.testing.assert_allclose(labels.numpy().sum(1), 1, rtol=1e-6)
        for classes in wrong:
            with pytest.raises(ValueError, match="`classes` must be the number of classes, here"):
                pipeline(dataset, 2, augment=Augment(mixup=1), classes=classes)


@pytest.mark.parametrize("cache", ["memory", None])
@pytest.mark.parametrize("scale, offset", [(1 / 255, 0), (1 / 127.5, -1), (float("nan"), 0)])
def test_pixels_that_were_scaled_are_refused(cache, scale, offset):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3)).astype("f4")

    def batches(images):
        dataset = tf.data.Dataset.from_tensor_slices((images, np.arange(4)))
        return list(pipeline(dataset, 2, image_size=5, cache=cache))

    assert len(batches(pixels)) == len(batches(pixels * 0)) == len(batches(np.sign(pixels))) == 2
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=r"pixels in \[0, 255\].*by 255"):
        batches(pixels * scale + offset)
