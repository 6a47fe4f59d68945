"""Streaming: data sets too large for a cache, read from their files or from any dataset."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfopt.data import Augment, load, pipeline
from tfopt.data.stream import RecordFiles, stream_of
from tfopt.schedules import Steps

COUNT = 90


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """A TFDS data set in several TFRecord files: image number i has the color i and the label i % 3."""
    folder = tmp_path_factory.mktemp("tfds")

    class SeveralFiles(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = folder

        def _info(self):
            label = tfds.features.ClassLabel(num_classes=3)
            features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": label}
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(COUNT):
                yield i, {"image": np.full((4 + i % 2, 5, 3), i, np.uint8), "label": i % 3}

    config = tfds.download.DownloadConfig(num_shards=7)
    SeveralFiles(data_dir=folder).download_and_prepare(download_config=config)
    data = load("several_files", data_dir=str(folder), validation_split=0, test_split=0)
    assert len(stream_of(data.train).taken) == 7
    return data


def flat(batches):
    pairs = [(images.numpy()[:, 0, 0, 0].astype(int), labels.numpy()) for images, labels in batches]
    images, labels = (np.concatenate(part) for part in zip(*pairs))
    assert (images % 3 == labels).all()
    return images.tolist()


def streamed(data, batch_size=8, **options):
    return pipeline(data.train, batch_size, **({"image_size": 6, "cache": None} | options))


def test_records_are_not_read_in_advance(numbered, monkeypatch):
    monkeypatch.setattr("tfopt.data.cache._choose", lambda needed, directory: None)
    monkeypatch.setattr("tfopt.data.cache._read", None)
    resized = numbered.resized(6)
    assert isinstance(stream_of(resized.train), RecordFiles) and len(resized.train) == COUNT
    assert flat(pipeline(resized.train, 8)) == flat(streamed(numbered))


def test_an_epoch_is_a_permutation_that_seed_and_epoch_decide(numbered):
    batches = streamed(numbered, seed=3)
    first, second = flat(batches), flat(batches)
    assert sorted(first) == sorted(second) == list(range(COUNT)) and first != second
    tf.random.set_seed(99)  # what else is random must not matter
    assert flat(streamed(numbered, batch_size=30, seed=3)) == first
    assert flat(streamed(numbered, seed=3, first_epoch=1)) == second
    assert flat(streamed(numbered, seed=3, epochs=2)) == first + second
    assert flat(streamed(numbered, seed=4)) != first
    stored = flat(streamed(numbered, shuffle=False))
    assert flat(numbered.train.map(lambda i, y: (i[None], y[None]))) == stored


def test_a_window_that_does_not_hold_all_still_mixes_files(numbered, monkeypatch):
    monkeypatch.setattr("tfopt.data.stream._WINDOW_BYTES", 5 * stream_of(numbered.train).record_bytes())
    order = flat(streamed(numbered))
    assert sorted(order) == list(range(COUNT))
    stored = flat(streamed(numbered, shuffle=False))
    files = np.repeat(np.arange(7), stream_of(numbered.train).taken)
    of_file = dict(zip(stored, files))
    assert len({of_file[number] for number in order[:14]}) >= 5


def test_resume_and_workers_see_the_same_epoch(numbered):
    batches = streamed(numbered)
    epochs = [[images.numpy() for images, _ in batches] for _ in range(2)]
    batches.position.set(epoch=1, batch=4)
    resumed = [images.numpy() for images, _ in batches]
    assert all((images == 0).all() for images in resumed[:4])
    assert all(np.array_equal(a, b) for a, b in zip(resumed[4:], epochs[1][4:]))
    parts = [streamed(numbered, 4, shard=(worker, 2)) for worker in range(2)]
    numbers = [np.reshape(flat(part), (-1, 4)) for part in parts]
    whole = np.reshape(flat(streamed(numbered, drop_remainder=True)), (-1, 8))
    np.testing.assert_array_equal(np.concatenate(numbers, 1), whole)


def test_streamed_images_equal_cached_ones(numbered):
    augment = Augment(rotate=90, shift=0.3, fill_mode="constant")

    def pixels(**options):
        batches = streamed(numbered, shuffle=False, augment=augment, **options)
        return np.concatenate([images.numpy() for images, _ in batches])

    np.testing.assert_array_equal(pixels(), pixels(cache="memory"))


def test_ramps_of_the_batch_size_stream_too(numbered):
    batches = streamed(numbered, Steps({0: 10, 90: 30}), epochs=2)
    assert [len(images) for images, _ in batches] == [10] * 9 + [30] * 3


def test_any_other_dataset_streams():
    x = np.arange(20).reshape(20, 1, 1, 1) * np.ones((1, 4, 4, 1), np.uint8)
    data = tf.data.Dataset.from_tensor_slices((x, np.arange(20) % 3)).filter(lambda x, y: y < 3)
    batches = pipeline(data, 8, image_size=6, cache=None)
    first, second = flat(batches), flat(batches)
    assert sorted(first) == sorted(second) == list(range(20)) and first != second


def test_names_of_large_sets_are_not_materialised(monkeypatch):
    """What examples/imagenet.py does, on random images of the same form."""
    monkeypatch.setattr("tfopt.data.cache._choose", lambda needed, directory: None)
    with tfds.testing.mock_data(num_examples=6):
        data = load("imagenet2012")
        assert len(data.class_names) == 1000
        batches = pipeline(data.train, 4, image_size=(32, 40), augment=Augment.light(), classes=1000)
        shapes = [images.shape.as_list() for images, _ in batches]
    assert shapes == [[4, 32, 40, 3], [2, 32, 40, 3]]
