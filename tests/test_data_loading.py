"""`load` and `resized`: every kind of source, splits, and every kind of bad input by name."""

import os
import sys

import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from tfopt.data import BadImageError, load
from tfopt.data.decode import decode, resize
from tfopt.data.random_access import random_access_of
from tfopt.data.split import stratified_split


def picture(path, color=(200, 30, 60), size=(20, 16), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).convert(mode).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two classes, ten pictures each, whose red channel is their number."""
    for name in ("ant", "bee"):
        for i in range(10):
            picture(tmp_path / name / f"{i}.png", (i * 20, 0, 255))
    return tmp_path


def labels(dataset):
    return [int(label) for _, label in dataset]


def reds(dataset):
    return [int(image[0, 0, 0]) for image, _ in dataset]


def test_digits_are_stratified_and_reproducible():
    data, again, other = load("digits"), load("digits"), load("digits", seed=1)
    assert sum(map(sum, data.class_counts.values())) == 1797
    assert data.class_names == tuple("0123456789")
    image, _ = next(iter(data.train))
    assert image.shape == (8, 8, 3) and image.dtype == tf.uint8
    for name, split in data.splits().items():
        assert np.bincount(labels(split)).tolist() == data.class_counts[name]
        assert max(data.class_counts[name]) - min(data.class_counts[name]) <= 8
    first = [image.numpy() for image, _ in data.test]
    assert all(np.array_equal(a, b.numpy()) for a, (b, _) in zip(first, again.test))
    assert not all(np.array_equal(a, b.numpy()) for a, (b, _) in zip(first, other.test))


def test_digits_are_those_of_scikit_learn_and_need_it_not(monkeypatch):
    """A core installation, which has no scikit-learn, runs the main job on them."""
    theirs = sklearn.datasets.load_digits()
    for module in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    source = random_access_of(load("digits", validation_split=0, test_split=0).train)
    assert np.array_equal(source.labels, theirs.target)
    assert np.array_equal(source.pixels[..., 0], np.rint(theirs.images * (255 / 16)))


def test_split_is_a_partition_with_equal_shares():
    classes = np.repeat([0, 1, 2], [100, 20, 2])
    parts = stratified_split(classes, {"validation": 0.2, "test": 0.1}, seed=3)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(122))
    assert np.bincount(classes[parts["validation"]], minlength=3).tolist() == [20, 4, 1]
    assert np.bincount(classes[parts["test"]], minlength=3).tolist() == [10, 2, 0]
    assert 2 in classes[parts["train"]]


def test_folder_of_classes(folder):
    data = load(str(folder), validation_split=0.2, test_split=0)
    assert data.class_names == ("ant", "bee")
    assert data.class_counts == {"train": [8, 8], "validation": [2, 2]}
    assert data.test is None
    resized = data.resized((6, 8))
    assert reds(resized.train) == reds(data.train) and labels(resized.train) == labels(data.train)
    assert next(iter(resized.train))[0].shape == (6, 8, 3)
    on_disk = data.resized((6, 8), cache="disk")
    pairs = zip(resized.train, on_disk.train)
    assert all(np.array_equal(a[0], b[0]) and a[1] == b[1] for a, b in pairs)


def test_folder_of_splits_keeps_them_and_takes_the_rest_from_train(tmp_path):
    for split, count in (("Train", 10), ("test", 3)):
        for name in ("a", "b"):
            for i in range(count):
                picture(tmp_path / split / name / f"{i}.jpg", (count * 20, 0, 0))
    data = load(tmp_path, validation_split=0.2)
    assert data.class_counts == {"train": [8, 8], "validation": [2, 2], "test": [3, 3]}
    assert all(abs(red - 60) < 5 for red in reds(data.test))


def test_arrays():
    x, y = np.arange(40).reshape(40, 1, 1, 1) * np.ones((1, 4, 5, 1)), np.arange(40) % 2
    data = load((x, y), class_names=("even", "odd"))
    assert data.class_names == ("even", "odd")
    assert all(red % 2 == label for red, label in zip(reds(data.train), labels(data.train)))
    splits = load({"train": (x, y), "test": (x[:4], y[:4])}, validation_split=0)
    assert splits.class_counts == {"train": [20, 20], "test": [2, 2]}


@pytest.mark.parametrize(
    "source, message",
    [
        ((np.zeros((4, 8, 8, 3)), np.zeros((4, 2), int)), "argmax"),
        ((np.zeros((4, 8, 8, 3)), np.zeros(3, int)), "shape"),
        ((np.zeros((4, 8, 8, 2)), np.array([0, 1, 0, 1])), "height, width"),
        ((np.zeros((4, 8, 8, 3)), np.zeros(4, int)), "two classes"),
        ((np.zeros((4, 8, 8, 3)), np.array([0, 2, 0, 2])), "Classes without images: ['1']"),
        ((np.full((4, 8, 8, 3), 0.5), np.array([0, 1, 0, 1])), "Multiply them by 255"),
        ((np.full((4, 8, 8, 3), np.nan), np.array([0, 1, 0, 1])), "pixels in [0, 255]"),
        ((np.full((4, 8, 8, 3), 300), np.array([0, 1, 0, 1])), "pixels in [0, 255]"),
        ((np.zeros((0, 8, 8, 3)), np.zeros(0, int)), "images"),
        ({"test": (np.zeros((4, 8, 8, 3)), np.arange(4))}, "'train'"),
        ("/no/such/folder", "an existing folder"),
        ("no_such_data_set", "TFDS name"),
    ],
)
def test_refused_sources(source, message):
    with pytest.raises(ValueError) as error:
        load(source)
    assert message in str(error.value)


def test_refused_options():
    for options in ({"validation_split": 0.6, "test_split": 0.4}, {"seed": -1}, {"on_bad_image": "ignore"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            load("digits", **options)
    with pytest.raises(TypeError, match="source"):
        load(3)


def test_tfds_names_and_subsplits():
    with tfds.testing.mock_data(num_examples=5):
        data = load("tf_flowers")
        assert data.class_counts["train"] and len(data.class_names) == 5
        grey = load("mnist/train[:10%]")
    image, label = next(iter(grey.train))
    assert image.shape == (28, 28, 3) and label.dtype == tf.int64


def test_tfds_slices_do_not_overlap(tmp_path):
    class Numbered(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tmp_path

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(1, 1, 3)),
                "label": tfds.features.ClassLabel(num_classes=2),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(100):
                yield i, {"image": np.full((1, 1, 3), i, np.uint8), "label": i % 2}

    Numbered(data_dir=tmp_path).download_and_prepare()
    prepared = load(
        tmp_path / "numbered"
    )  # as copied from another machine: the code of the set is not needed
    assert prepared.class_names == ("0", "1") and sum(prepared.example_counts.values()) == 100
    for name, total in (("numbered", 100), ("numbered/train[10:50]", 40), ("numbered/train[:60%]", 60)):
        data = load(name, data_dir=str(tmp_path))
        found = [reds(split) for split in data.splits().values()]
        assert len({red for part in found for red in part}) == sum(map(len, found)) == total
        assert min(map(len, found)) >= 5


# --- files that are not what they should be ---


def test_kinds_of_pixels_become_rgb(tmp_path):
    red = (255, 0, 0)
    assert decode(picture(tmp_path / "grey.png", (90, 90, 90), mode="L"))[0, 0].tolist() == [90, 90, 90]
    assert decode(picture(tmp_path / "palette.gif", red, mode="P"))[0, 0].tolist() == [255, 0, 0]
    cmyk = decode(picture(tmp_path / "cmyk.jpg", red, mode="CMYK"))[0, 0].astype(int)
    assert np.abs(cmyk - red).max() < 12
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    clear.save(tmp_path / "clear.png")
    assert decode(tmp_path / "clear.png")[0, 0].tolist() == [255, 255, 255]
    deep = Image.fromarray(np.full((4, 4), 128 * 257, np.uint16))
    deep.save(tmp_path / "deep.png")
    assert decode(tmp_path / "deep.png")[0, 0].tolist() == [128, 128, 128]
    rotated = Image.new("RGB", (20, 10))
    exif = rotated.getexif()
    exif[0x0112] = 6
    rotated.save(tmp_path / "phone.jpg", exif=exif)
    assert decode(tmp_path / "phone.jpg").shape == (20, 10, 3)
    assert decode(tmp_path / "phone.jpg", (5, 7)).shape == (5, 7, 3)


def test_a_cache_holds_the_pixels_that_decode_gives(tmp_path):
    rng = np.random.default_rng(0)
    for number, options in enumerate(
        [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 20}, {"mode": "L"}, {"mode": "CMYK"},
         {"orientation": 6}, {"orientation": 3}, {"size": (9, 24)}, {"kind": "png"}]
    ):  # fmt: skip
        options = {"size": (24, 24), "kind": "jpg", "mode": "RGB", **options}
        pixels = rng.integers(0, 255, (*options.pop("size"), 3), dtype=np.uint8)
        image, kind = Image.fromarray(pixels).convert(options.pop("mode")), options.pop("kind")
        exif = image.getexif()
        exif[0x0112] = options.pop("orientation", 1)
        for name in ("a", "b"):
            path = tmp_path / name / f"{number}.{kind}"
            path.parent.mkdir(exist_ok=True)
            image.save(path, exif=exif, **options)
    data = load(tmp_path, validation_split=0, test_split=0)
    paths = random_access_of(data.train).paths
    for cache in ("memory", "disk"):
        for path, (found, _) in zip(paths, data.resized(24, cache=cache).train):
            np.testing.assert_array_equal(found, decode(path, (24, 24)))
    damaged = tmp_path / "b" / "2.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-400])
    with pytest.raises(BadImageError, match=r"b/2\.jpg"):
        data.resized(24)


def test_cropping_keeps_the_shape_of_things(tmp_path):
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 15:25] = 255  # the middle quarter
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert decode(tmp_path / "wide.png", (10, 10), crop_to_aspect_ratio=True).min() == 255
    assert decode(tmp_path / "wide.png", (10, 10)).min() == 0


@pytest.mark.parametrize("image_size", [(224, 224), (100, 150), (299, 299), (7, 30)])
def test_cropping_takes_images_of_every_size(image_size):
    for side in range(1, 700):  # 58 and 116, but not 57, were refused: 224 * (58 / 224) is above 58
        for shape in ((side, side, 3), (side, 200, 3), (200, side, 3)):
            assert resize(np.zeros(shape, np.uint8), image_size, True).shape == (*image_size, 3)


BAD = {
    "empty.jpg": b"",
    "text.png": b"this is not an image",
    "cut.jpg": None,
    "huge.png": None,
}


@pytest.fixture
def spoiled(folder):
    """The folder with four bad images."""
    for name, content in BAD.items():
        path = folder / "ant" / name
        if name == "cut.jpg":
            noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
            content = path.read_bytes()[:2000]
        if name == "huge.png":
            good = picture(folder / "ant" / "0.png").read_bytes()
            content = good[:16] + (100_000).to_bytes(4, "big") * 2 + good[24:]
        path.write_bytes(content)
    return folder


def test_bad_images_are_named(spoiled):
    for name in BAD:
        path = str(spoiled / "ant" / name)
        with pytest.raises(BadImageError) as error:
            decode(path, (8, 8))
        assert repr(path) in str(error.value) and "skip" in str(error.value)
    with pytest.raises(BadImageError, match=r"cut\.jpg|empty\.jpg|huge\.png|text\.png"):
        load(spoiled).resized(8)
    with pytest.raises(tf.errors.OpError, match=r"cut\.jpg|empty\.jpg|huge\.png|text\.png"):
        list(load(spoiled).train)


def test_bad_images_are_skipped_and_counted(spoiled):
    (spoiled / "bee" / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    with pytest.raises(BadImageError, match=r"film\.mov"):
        load(spoiled)
    data = load(spoiled, on_bad_image="skip", validation_split=0, test_split=0)
    assert sorted(map(os.path.basename, data.skipped)) == sorted([*BAD, "film.mov"])
    assert data.class_counts == {"train": [10, 10]}
    assert len(reds(data.resized(8).train)) == 20


def test_folders_that_cannot_be_trained_on(tmp_path):
    def refused(message, **options):
        with pytest.raises(ValueError) as error:
            load(tmp_path, **options)
        assert message in str(error.value)

    refused("no images")
    picture(tmp_path / "loose.png")
    refused("Expected one sub-folder of images for each class")
    picture(tmp_path / "cat" / "1.png")
    refused("one class only")
    (tmp_path / "dog").mkdir()
    refused("'dog'")
    (tmp_path / "dog" / "1.png").write_bytes(b"")
    refused("'dog'", on_bad_image="skip")
    picture(tmp_path / "other" / "train" / "a" / "1.png")
    picture(tmp_path / "other" / "train" / "b" / "1.png")
    picture(tmp_path / "other" / "test" / "A" / "1.png")
    with pytest.raises(ValueError, match=r"classes that training does not have: \['A'\]"):
        load(tmp_path / "other")


def test_strange_names(tmp_path):
    names = [
        "two words.png",
        "ünïcödé 🌼.png",
        "line\nbreak.png",
        "UPPER.PNG",
        ".hidden.png",
        "a" * 200 + ".png",
    ]
    for name in names:
        picture(tmp_path / "<b>bold" / name)
        picture(tmp_path / "plain" / "deeper" / name)
    os.symlink(tmp_path / "plain", tmp_path / "plain" / "loop")
    (tmp_path / ".cache").mkdir()
    surrogate = os.fsencode(tmp_path / "plain") + b"/latin-\xe9.png"
    os.link(tmp_path / "plain" / "deeper" / "UPPER.PNG", surrogate)
    data = load(tmp_path, validation_split=0, test_split=0)
    assert data.class_names == ("<b>bold", "plain")
    assert data.class_counts == {"train": [5, 6]}
    assert len(labels(data.train)) == 11


def test_classes_that_look_alike_stay_apart_with_a_warning(tmp_path, caplog):
    for name in ("Cat", "cat", "caf\u00e9", "cafe\u0301", "dog"):
        picture(tmp_path / name / "1.png")
    data = load(tmp_path, validation_split=0, test_split=0)
    assert data.class_counts == {"train": [1] * 5}
    assert "'Cat'" in caplog.text and "'cat'" in caplog.text and "caf" in caplog.text
    assert "'dog'" not in next(text for text in caplog.messages if "accent" in text)


def test_a_dataset_that_must_be_read_in_order_is_cached(folder):
    data = load(folder, validation_split=0, test_split=0)
    from tfopt.data import pipeline

    mapped = data.train.map(lambda image, label: (255 - image, label))
    batches = pipeline(mapped, 7, image_size=8, shuffle=False)
    seen = np.concatenate([images.numpy()[:, 0, 0, 0] for images, _ in batches])
    assert seen.tolist() == [255 - red for red in reds(data.train)]
    with pytest.raises(ValueError, match="repeat"):
        pipeline(mapped.repeat(), 7, image_size=8)
