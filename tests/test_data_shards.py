"""`tfopt data prepare`: images in TFRecord files, read back in any order."""

import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfopt.cli import main
from tfopt.data import BadImageError, find_leaks, load, pipeline, prepare
from tfopt.data.random_access import random_access_of
from tfopt.data.shards import Shards

COLORS = {"blue": (0, 0, 220), "green": (0, 200, 0), "red": (210, 0, 0)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """20 noisy images of each color, some larger than others, JPEG and PNG."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, color in COLORS.items():
        (folder / name).mkdir()
        for number in range(20):
            height, width = random.integers(12, 40, 2)
            pixels = np.clip(np.array(color) + random.normal(0, 20, (height, width, 3)), 0, 255)
            ending = "jpg" if number % 2 else "png"
            Image.fromarray(pixels.astype("uint8")).save(folder / name / f"{number}.{ending}")
    return folder


@pytest.fixture(scope="module")
def shards(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "shards"
    return folder, prepare(photos, folder, image_size=16, examples_per_shard=15)


def test_prepared_images_are_those_of_the_folder(photos, shards):
    folder, found = shards
    data, plain = load(folder), load(photos)
    assert (data.class_names, data.class_counts) == (plain.class_names, plain.class_counts)
    assert found.counts == {"train": 42, "validation": 9, "test": 9} and found.shards == 5
    assert found.written == found.bytes == sum(path.stat().st_size for path in folder.glob("*.tfrecord"))
    labels = []
    for image, label in data.train.as_numpy_iterator():
        assert min(image.shape[:2]) <= 16 and max(image.shape[:2]) >= 12
        color = COLORS[data.class_names[label]]
        np.testing.assert_allclose(image.mean((0, 1)), color, atol=25)
        labels.append(label)
    assert labels != sorted(labels), "in random order"
    assert not find_leaks(data)


def test_the_files_are_ordinary_tfrecords(shards):
    folder, _ = shards
    files = sorted(str(path) for path in folder.glob("train-*.tfrecord"))
    form = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/label": tf.io.FixedLenFeature([], tf.int64),
    }
    records = [tf.io.parse_single_example(record, form) for record in tf.data.TFRecordDataset(files)]
    assert len(records) == 42
    examples = random_access_of(load(folder).train)
    for number in (0, 17, 41):
        assert examples.content(number) == records[number]["image/encoded"].numpy()
        assert examples.labels[number] == records[number]["image/label"].numpy()


def test_batches_are_a_function_of_seed_epoch_and_place(shards):
    data = load(shards[0])
    examples = random_access_of(data.train)
    assert isinstance(examples, Shards)
    batches = {}
    for cache in (None, "memory"):
        batches[cache] = pipeline(data.train, 16, image_size=12, cache=cache, seed=3, first_epoch=1)
    for (images, labels), (others, other_labels) in zip(batches[None], batches["memory"]):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, other_labels)


def test_an_interrupted_call_goes_on(photos, shards, tmp_path):
    folder, found = shards
    again = shutil.copytree(folder, tmp_path / "again")
    (again / "index.json").unlink()
    (again / "train-00001-of-00003.tfrecord.json").unlink()
    torn = again / "validation-00000-of-00001.tfrecord"
    torn.write_bytes(torn.read_bytes()[:100])
    second = prepare(photos, again, image_size=16, examples_per_shard=15)
    assert 0 < second.written < second.bytes == found.bytes and "MB of it before" in str(second)
    for path in folder.iterdir():
        if path.is_file():
            assert (again / path.name).read_bytes() == path.read_bytes(), path.name
    assert load(again).fingerprint() == load(folder).fingerprint()
    with pytest.raises(FileExistsError, match="other images or options. Choose another `output`"):
        prepare(photos, again, image_size=12, examples_per_shard=15)


def test_outputs_that_hold_something_else_are_refused(photos, tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(FileExistsError, match="holds other files"):
        prepare(photos, tmp_path)
    with pytest.raises(ValueError, match="lies inside the data"):
        prepare(photos, photos / "shards")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["thesis.tex"]


def test_bad_images_are_named_or_left_out(photos, tmp_path, capsys):
    source = shutil.copytree(photos, tmp_path / "source")
    (source / "red" / "1.jpg").write_bytes((source / "red" / "1.jpg").read_bytes()[:200])
    with pytest.raises(BadImageError, match=r"1\.jpg.*skip"):
        prepare(source, tmp_path / "strict")
    command = [
        "data",
        "prepare",
        str(source),
        "--output",
        str(tmp_path / "lenient"),
        "--on-bad-image",
        "skip",
    ]
    assert main(command) == 0
    assert "MB/s" in capsys.readouterr().out
    data = load(tmp_path / "lenient")
    assert sum(map(sum, data.class_counts.values())) == 59 and data.skipped[0].endswith("1.jpg")


def test_a_short_file_is_named_with_what_to_do(shards, tmp_path):
    copy = shutil.copytree(shards[0], tmp_path / "copy")
    for path in copy.glob("train-*.tfrecord"):
        path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(BadImageError, match="train-0000.*copy it again"):
        random_access_of(load(copy).train).array(3)
    (copy / "train-00000-of-00003.tfrecord").unlink()
    with pytest.raises(BadImageError, match="No such file"):
        random_access_of(load(copy).train).array(3)


def flipped(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_other_bytes_in_an_image_are_noticed_although_they_decode(photos, shards, tmp_path):
    copy = shutil.copytree(shards[0], tmp_path / "copy")
    examples = random_access_of(load(copy).train)
    for index in (0, 5, 20):
        middle = int(examples.starts[index] + examples.sizes[index] // 2)
        flipped(copy / pathlib.Path(examples.shards[examples.files[index]]).name, middle)
        with pytest.raises(BadImageError, match=f"image {index} are not those that were written: copy it"):
            examples.array(index)
    again = prepare(photos, copy, image_size=16, examples_per_shard=15)
    assert 0 < again.written < again.bytes, "the damaged files alone"
    for path in shards[0].glob("[!.]*.*"):
        assert (copy / path.name).read_bytes() == path.read_bytes(), path.name


NOTES = "train-00001-of-00003.tfrecord.json"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("index.json", lambda text: ""),
        ("index.json", lambda text: text[:300]),
        ("index.json", lambda text: "[]"),
        ("index.json", lambda text: text.replace('"blue"', '"blur"')),
        ("index.json", lambda text: '{"format": "tfopt shards 1"}'),
        ("index.json", None),
        (NOTES, lambda text: ""),
        (NOTES, lambda text: text[:-20]),
        (NOTES, lambda text: "{}"),
        (NOTES, lambda text: "[1, 2]"),
        (NOTES, lambda text: text.replace('"labels": [', '"labels": [0, ')),
        (
            NOTES,
            lambda text: re.sub(r'(?<="labels": \[)\d', lambda first: str((int(first[0]) + 1) % 3), text),
        ),
        (NOTES, lambda text: text.replace('"sizes": [', '"sizes": ["a", ')),
    ],
)
def test_a_damaged_index_is_named_and_written_again_by_prepare(name, change, photos, shards, tmp_path):
    copy = shutil.copytree(shards[0], tmp_path / "copy")
    if change is None:
        (copy / name).unlink()
    else:
        before = (copy / name).read_text()
        assert change(before) != before
        (copy / name).write_text(change(before))
    with pytest.raises(ValueError, match="Run the same `tfopt data prepare` again") as error:
        load(copy)
    assert (name if change else str(copy)) in str(error.value)
    prepare(photos, copy, image_size=16, examples_per_shard=15)
    assert (copy / name).read_bytes() == (shards[0] / name).read_bytes()
    assert load(copy).fingerprint() == load(shards[0]).fingerprint()


def test_a_damaged_plan_is_told_with_a_way_out(photos, shards, tmp_path):
    copy = shutil.copytree(shards[0], tmp_path / "copy")
    (copy / "prepare.json").write_text("")
    with pytest.raises(FileExistsError, match="prepare.json' is damaged.*choose another `output`"):
        prepare(photos, copy, image_size=16, examples_per_shard=15)


def test_an_index_of_something_else_does_not_hide_images(photos, tmp_path):
    source = shutil.copytree(photos, tmp_path / "source")
    (source / "index.json").write_text("{}")
    assert load(source).class_names == ("blue", "green", "red")


@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes")
def test_a_full_disk_ends_prepare_in_a_sentence_and_the_same_call_goes_on(photos, shards, tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"no room to write \(.* MB free\).*again.*tfrecord"):
            prepare(photos, tmp_path / "shards", image_size=16, examples_per_shard=15)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "shards").glob(".partial*"))
    prepare(photos, tmp_path / "shards", image_size=16, examples_per_shard=15)
    for path in shards[0].glob("[!.]*.*"):
        assert (tmp_path / "shards" / path.name).read_bytes() == path.read_bytes(), path.name


def test_numbers_and_weights_are_kept(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 10, 10, 3)).astype("uint8")
    splits = {name: (images, np.linspace(0, 1, 20), np.full(20, 0.5)) for name in ("train", "test")}
    prepare(splits, tmp_path / "shards", task="regression")
    data = load(tmp_path / "shards", validation_split=0)
    assert data.task == "regression" and data.has_sample_weights
    assert json.loads((tmp_path / "shards" / "index.json").read_text())["task"] == "regression"
    for image, label, weight in data.test.as_numpy_iterator():
        place = round(float(label[0]) * 19)
        np.testing.assert_array_equal(image, images[place])
        assert weight == 0.5
