"""How image folders lie on people's disks: splits under their usual names, junk, links, odd files."""

import os
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from tfopt import _memory
from tfopt.data import BadImageError, check_images, find_leaks, load
from tfopt.data.bit_depth import depth_of
from tfopt.data.decode import decode
from tfopt.data.layout import split_of


def picture(path, seed=None, size=(24, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = abs(hash(str(path))) % 2**32 if seed is None else seed
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR).save(path)
    return path


def classes(root, *names, count=6, ending="png"):
    for name in names:
        for i in range(count):
            picture(root / name / f"{i}.{ending}")
    return root


@pytest.mark.parametrize(
    "names",
    [
        ("Training", "Testing"),
        ("train", "dev", "test"),
        ("train", "eval"),
        ("train", "PublicTest", "PrivateTest"),
        ("trn", "tst"),
        ("train_set", "test_set"),
        ("train_images", "val_images", "test-images"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("TRAIN", "valid", "TEST"),
        ("trainset", "validset"),
        ("Training Data", "Validation Data"),
        ("train2017", "val2017"),
        ("images.train", "images.test"),
        ("imgs_training", "imgs_holdout"),
        ("wrapped/train", "wrapped/test"),
    ],
)
def test_splits_are_found_under_their_usual_names(tmp_path, names):
    for number, name in enumerate(names):
        classes(tmp_path / name, "ant", "bee", count=6 if number == 0 else 3)
    data = load(tmp_path, validation_split=0, test_split=0)
    assert data.class_names == ("ant", "bee")
    kinds = {split_of(name.rpartition("/")[2]) for name in names}
    assert set(data.class_counts) == kinds and len(kinds) == len(names)
    assert data.class_counts["train"] == [6, 6]
    assert check_images(tmp_path).ok


@pytest.mark.parametrize("name", ["contest", "latest", "trainer", "device", "restrain", "value", "images"])
def test_other_names_are_no_splits(name):
    assert split_of(name) is None


@pytest.mark.parametrize("names", [("train", "bus", "car"), ("valid", "invalid"), ("trains", "tests")])
def test_classes_may_be_named_like_splits_where_no_one_means_splits(tmp_path, names):
    assert load(classes(tmp_path, *names)).class_names == tuple(sorted(names))


def test_train_inside_a_folder_named_train_is_a_class(tmp_path):
    classes(tmp_path / "train", "train", "test")
    assert load(tmp_path).class_names == ("test", "train")


@pytest.mark.parametrize(
    "folders, text",
    [
        (("train/a", "train/b", "test/a", "test/b", "pred"), r"beside them \['pred'\], which are no splits"),
        (("train/a", "train/b", "test"), r"\['test'\].*no class folders"),
        (("train", "test"), "no class folders inside"),
        (("a", "b", "test"), "named like splits"),
        (("val/a", "val/b", "test/a", "test/b"), "none for training"),
        (("images", "masks"), "masks or annotations"),
        (("train/images", "train/labels"), "masks or annotations"),
        (("train/a", "train/b", "val/a", "valid/a"), "two folders for one split"),
        (("train/a", "train/b", "test/c"), r"training does not have: \['c'\]"),
        (("a\nb", "c"), "in one line"),
    ],
)
def test_odd_arrangements_are_refused_and_the_check_says_so(tmp_path, folders, text):
    classes(tmp_path, *folders)
    with pytest.raises(ValueError, match=text):
        load(tmp_path)
    found = check_images(tmp_path)
    assert not found.ok and found.layout and "`load` refuses" in str(found)


def test_the_ways_out_of_the_messages_work(tmp_path):
    classes(tmp_path, "train/a", "train/b", "test/a", "test/b", "pred")
    (tmp_path / "pred").rename(tmp_path / ".pred")
    assert set(load(tmp_path, validation_split=0).class_counts) == {"train", "test"}
    classes(tmp_path / "x" / "train", "valid", "test")
    assert load(tmp_path / "x").class_names == ("test", "valid")


def test_junk_is_passed_over_with_a_count(tmp_path, caplog):
    classes(tmp_path, "a", "b")
    picture(tmp_path / "a" / "@eaDir" / "0.png" / "SYNOPHOTO_THUMB_M.png")
    picture(tmp_path / "$RECYCLE.BIN" / "$R1.png")
    picture(tmp_path / "__MACOSX" / "a" / "._0.png")
    picture(tmp_path / "loose.png")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png", "0.xml", "README.txt", "LICENSE"):
        (tmp_path / "b" / name).write_bytes(b"junk")
    data = load(tmp_path, validation_split=0, test_split=0)
    assert data.class_names == ("a", "b") and data.class_counts == {"train": [6, 6]}
    (note,) = [note for note in data.notes if "no images" in note]
    assert note.startswith("passed over 10 files") and "1 Thumbs.db" in note and note in caplog.text
    assert any("1 images" in note and "no class folder" in note for note in data.notes)
    found = check_images(tmp_path)
    assert found.ok and found.files == 12 and note in str(found)


def test_files_are_taken_by_their_content(tmp_path):
    classes(tmp_path, "a", "b", count=2)
    image = Image.open(tmp_path / "a" / "0.png")
    kinds = {"x.jfif": "JPEG", "x.jpe": "JPEG", "x.jp2": "JPEG2000", "x.tga": "TGA", "x.ico": "ICO"}
    kinds |= {"x.avif": "AVIF", "x.tiff": "TIFF", "none": "PNG", "x.photo": "JPEG", "x.pbm": "PPM"}
    for name, kind in kinds.items():
        image.save(tmp_path / "b" / name, kind)
    data = load(tmp_path, validation_split=0, test_split=0)
    assert data.class_counts == {"train": [2, 2 + len(kinds)]}
    assert len(list(data.resized(8).train)) == 4 + len(kinds)
    found = check_images(tmp_path)
    assert not found.unreadable and found.files == 4 + len(kinds)
    (tmp_path / "b" / "film").write_bytes(b"\0\1\2\3" * 50)
    with pytest.raises(BadImageError, match="film"):
        load(tmp_path)
    assert [path for path, _ in check_images(tmp_path).unreadable] == [str(tmp_path / "b" / "film")]
    skipped = load(tmp_path, on_bad_image="skip")
    assert skipped.skipped == (str(tmp_path / "b" / "film"),)


def test_formats_without_a_decoder_name_what_to_install(tmp_path):
    for name, text in (("a.heic", r'pip install "tfopt\[heif\]"'), ("a.svg", "PNG"), ("a.dcm", "pydicom")):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
        with pytest.raises(BadImageError, match=text):
            decode(tmp_path / name)


def test_links_that_lead_back_give_no_image_another_class(tmp_path):
    classes(tmp_path / "data", "a", "b/deep/deeper")
    os.symlink("..", tmp_path / "data" / "a" / "up")
    os.symlink(tmp_path, tmp_path / "data" / "b" / "top")
    data = load(tmp_path / "data", validation_split=0, test_split=0)
    assert data.class_counts == {"train": [6, 6]} and "listed already" in " ".join(data.notes)
    assert check_images(tmp_path / "data").files == 12
    os.symlink(tmp_path / "data" / "a", tmp_path / "data" / "b" / "other")
    with pytest.raises(ValueError, match="different classes"):
        load(tmp_path / "data")


def test_links_to_class_folders_elsewhere_are_followed(tmp_path):
    classes(tmp_path / "store", "a", "b")
    (tmp_path / "data").mkdir()
    for name in ("a", "b"):
        os.symlink(tmp_path / "store" / name, tmp_path / "data" / name)
    assert load(tmp_path / "data", validation_split=0, test_split=0).class_counts == {"train": [6, 6]}


def test_thin_classes_are_told(tmp_path):
    classes(tmp_path / "train", "a", "b")
    picture(tmp_path / "train" / "c" / "0.png")
    classes(tmp_path / "test", "a")
    notes = load(tmp_path).notes
    assert any("test has no images of 'b', 'c'" in note for note in notes)
    assert any("train has one image only of 'c'" in note for note in notes)


def test_sources_that_are_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    classes(tmp_path / "photos", "a", "b")
    assert load("~/photos").class_names == ("a", "b") and check_images("~/photos").ok
    (tmp_path / "photos.zip").write_bytes(b"PK")
    for source, text in (("https://x.org/a.zip", "get_file"), (tmp_path / "photos.zip", "unpack_archive")):
        with pytest.raises(ValueError, match=text):
            load(source)


def deep(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint16)).save(path)


def test_twelve_bits_in_sixteen_are_scaled_alike_in_all_images(tmp_path):
    for name, high in (("a", 4000), ("b", 900)):
        for i in range(4):
            deep(tmp_path / name / f"{i}.png", np.full((6, 6), high - i))
    data = load(tmp_path, validation_split=0, test_split=0)
    values = [int(image[0, 0, 0]) for image, _ in data.resized(6).train]
    assert values == [(high - i) * 255 // 4095 for high in (4000, 900) for i in range(4)]
    assert any("12-bit" in note for note in data.notes)
    deep(tmp_path / "b" / "9.png", np.full((6, 6), 60000))
    assert int(next(iter(load(tmp_path, validation_split=0, test_split=0).train))[0][0, 0, 0]) == 15


@pytest.mark.parametrize("high, bits", [(1, 8), (255, 8), (256, 10), (1023, 10), (4095, 12), (65535, 16)])
def test_one_image_alone_is_scaled_by_the_depth_that_holds_it(tmp_path, high, bits):
    assert depth_of(high) == bits
    deep(tmp_path / "x.png", np.array([[high, high // 2]] * 3))
    pixels = decode(tmp_path / "x.png")
    assert pixels[0, 0].tolist() == [high * 255 // (2**bits - 1)] * 3


def test_large_grey_pictures_are_scaled_in_strips(tmp_path):
    deep(tmp_path / "x.png", np.arange(8_000_000).reshape(2000, 4000) % 50_000)
    tracemalloc.start()
    pixels = decode(tmp_path / "x.png", (8, 8))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert pixels.shape == (8, 8, 3) and peak < 60e6  # as one array of int64 it took 128 MB and more


def test_the_memory_of_a_container_counts(tmp_path, monkeypatch):
    group = tmp_path / "fs" / "a" / "b"
    group.mkdir(parents=True)
    monkeypatch.setattr(_memory, "_CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(_memory, "_OWN_CGROUPS", tmp_path / "own")
    (tmp_path / "own").write_text("0::/a/b\n")
    unlimited = _memory.free_memory()
    for place, limit in ((group, "max"), (group.parent, str(90_000_000))):
        (place / "memory.max").write_text(limit)
        (place / "memory.current").write_text("50000000")
        (place / "memory.stat").write_text("anon 1\ninactive_file 20000000\n")
    assert unlimited > 2**28 and _memory.free_memory() == 60_000_000
    (tmp_path / "own").write_text("7:memory:/a\n0::/none\n")
    v1 = tmp_path / "fs" / "memory" / "a"
    v1.mkdir(parents=True)
    (v1 / "memory.limit_in_bytes").write_text("80000000")
    (v1 / "memory.usage_in_bytes").write_text("90000000")
    (v1 / "memory.stat").write_text("total_inactive_file 0\n")
    assert _memory.free_memory() == 0  # and not negative


def test_a_cache_on_disk_asks_for_no_more_than_it_may(monkeypatch):
    import resource

    from tfopt.data import cache

    monkeypatch.setattr(cache, "free_memory", lambda: 0)
    assert cache._choose(10**6, None) == "disk" and cache._choose(10**18, None) is None
    monkeypatch.setattr(resource, "getrlimit", lambda _: (10**5, 10**5))
    assert cache._choose(10**6, None) is None


def test_the_same_picture_in_two_splits_is_found_in_any_form(tmp_path):
    for split, count in (("train", 12), ("test", 6)):
        classes(tmp_path / split, "a", "b", count=count)
    assert not find_leaks(load(tmp_path, validation_split=0)) and check_images(tmp_path).ok
    source = Image.open(picture(tmp_path / "train" / "a" / "big.png", seed=1, size=(120, 90)))
    source.save(tmp_path / "test" / "a" / "again.jpg", quality=60)
    source.resize((64, 48)).save(tmp_path / "test" / "b" / "small.bmp")
    data = load(tmp_path, validation_split=0)
    for images in (data, data.resized(32), data.resized(32).balanced()):
        leaks = find_leaks(images)
        assert leaks.counts == {"test": 2} and len(leaks.groups) == len(leaks.conflicts) == 1
        assert "2 images of test (14.3%)" in str(leaks) and "different labels" in str(leaks)
    found = check_images(tmp_path)
    assert len(found.leaks) == len(found.conflicts) == 1 and len(found.duplicates[0]) == 3


def test_different_pictures_are_no_leaks():
    digits = find_leaks(load("digits"))
    assert len(digits.groups) <= 1  # of 1,797
    flat = np.repeat(np.arange(0, 250, 5), 48).reshape(50, 4, 4, 3).astype(np.uint8)
    assert not find_leaks(load((flat, np.arange(50) % 2)))
    drawings = np.full((60, 40, 40, 3), 255, np.uint8)
    for i, image in enumerate(drawings):
        image[5 + i % 6 * 5 : 9 + i % 6 * 5, i // 6 * 2 : 30] = 0
    assert not find_leaks(load((drawings, np.arange(60) % 2)))
