"""Many files: listing opens none, memory per file is bounded, and what is read is not kept."""

import itertools
import os
import pathlib
import re
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from tfopt.data import check_images, decode, load, pipeline

BYTES_A_FILE = 400  # a million files in 400 MB
SIZES = [5_000, pytest.param(100_000, marks=pytest.mark.full)]


@pytest.fixture(params=SIZES)
def many(request, tmp_path):
    """Links to a few small images: as many names as wanted, little to write."""
    originals = []
    for number in range(200):  # a file system allows some 65,000 links to one file
        path = tmp_path / ".originals" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 5), (number, 0, 0)).save(path)
        originals.append(path)
    for number, original in zip(range(request.param), itertools.cycle(originals)):
        folder = tmp_path / f"class {number % 4}"
        folder.mkdir(exist_ok=True)
        os.link(original, folder / f"a name of usual length {number:07d}.png")
    return tmp_path, request.param


def traced(function):
    """The result, and the most bytes that were held on the way."""
    tracemalloc.start()
    try:
        return function(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_listing_opens_no_file_and_takes_little_memory(many, monkeypatch):
    folder, count = many
    monkeypatch.setattr(Image, "open", None)
    data, peak = traced(lambda: load(folder))
    assert sum(map(sum, data.class_counts.values())) == count
    assert peak < BYTES_A_FILE * count + 2e6


def test_an_epoch_of_files_keeps_none_of_them(many, monkeypatch):
    folder, count = many
    data = load(folder, validation_split=0, test_split=0)
    batches = pipeline(data.train, 500, image_size=8, cache=None)
    seen, peak = traced(lambda: sum(len(images) for images, _ in batches))
    assert seen == count and peak < 20e6  # NumPy reports its arrays: all images take 1 GB at 8 x 8 in full
    (images, labels), *_ = pipeline(data.train, 4, image_size=8, cache="disk", shuffle=False).take(1)
    assert labels.numpy().tolist() == [0] * 4 and images.shape == (4, 8, 8, 3)


@pytest.mark.full
def test_the_integrity_scan_takes_little_memory(many):
    folder, count = many
    check_images(folder / "class 0", min_size=1)  # the modules that it imports are not counted
    found, peak = traced(lambda: check_images(folder, min_size=1))
    assert found.files == count and len(found.duplicates) == 200
    assert sum(map(len, found.duplicates)) == count and peak < 2 * BYTES_A_FILE * count + 3e6


def test_fifty_megapixels_are_read_at_a_fraction(tmp_path):
    """A photograph of 8,192 x 6,144 pixels would take 200 MB; the JPEG decoder makes it smaller."""
    path = tmp_path / "large.jpg"
    Image.effect_noise((512, 384), 50).convert("RGB").resize((8192, 6144)).save(path, quality=50)
    before = resident("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    pixels = decode.decode(path, (224, 224))
    assert pixels.shape == (224, 224, 3) and np.std(pixels) > 10
    assert resident("VmHWM") - before < 40e6


def resident(name):
    """Bytes of memory of this process: VmRSS now, VmHWM at most."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s*(\d+) kB", status)[1]) * 1024
