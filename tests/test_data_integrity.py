"""`check_images`, and mutated files that must be read, skipped or named but never crash."""

import io
import json
import os
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from tfopt.data import BadImageError, check_images
from tfopt.data import decode as module
from tfopt.data.decode import decode


def save(path, seed, size=(40, 40), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def test_finds_each_kind_and_only_it(tmp_path):
    for seed, place in enumerate(("train/a", "train/b", "test/a", "test/b"), start=10):
        save(tmp_path / place / "ok.png", seed)
    assert check_images(tmp_path).ok and "fine" in str(check_images(tmp_path))
    save(tmp_path / "train" / "a" / "leak.png", 1)
    save(tmp_path / "test" / "a" / "copy.png", 1)
    save(tmp_path / "train" / "b" / "two.png", 2)
    save(tmp_path / "train" / "a" / "labels.png", 2)
    save(tmp_path / "train" / "a" / "tiny.png", 3, (4, 50))
    save(tmp_path / "train" / "a" / "grey.png", 4, mode="L")
    (tmp_path / "train" / "a" / "empty.jpg").write_bytes(b"")
    found = check_images(tmp_path, progress=True)
    assert not found.ok and found.files == 11
    assert [path.split("/")[-1] for path, _ in found.unreadable] == ["empty.jpg"]
    assert [path.split("/")[-1] for path, _ in found.tiny] == ["tiny.png"]
    assert [mode for _, mode in found.odd_modes] == ["L"]
    assert len(found.duplicates) == 2 and len(found.leaks) == 1 and len(found.conflicts) == 1
    assert any("leak.png" in path for path in found.leaks[0])
    for word in ("needs attention", "several splits", "several classes", "empty.jpg", "tiny.png"):
        assert word in str(found)
    with pytest.raises(ValueError, match="directory"):
        check_images(tmp_path / "nowhere")


def test_the_command_reports_and_fails_on_findings(tmp_path, capsys):
    from tfopt.cli import main

    for name in ("a", "b"):
        save(tmp_path / "a" / f"line\nbreak{name}.png", ord(name))
        save(tmp_path / "b" / f"{name}.png", 100 + ord(name), mode="L")
    assert main(["data", "check", str(tmp_path)]) == 0
    output = capsys.readouterr()
    assert "4 files: fine" in output.out and "2 not RGB" in output.out and "Checking" in output.err
    (tmp_path / "b" / "c.jpg").write_bytes(b"no image")
    assert main(["data", "check", str(tmp_path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"] and found["files"] == 5 and found["unreadable"][0][0].endswith("c.jpg")
    (tmp_path / "empty").mkdir()
    assert main(["data", "check", str(tmp_path / "empty")]) == 1
    assert "0 files: needs attention" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "nowhere")]) == 1
    assert "an existing folder" in capsys.readouterr().err


def mutated(rng, content):
    """Truncated, bits flipped, zeroed, or with a huge number in the header."""
    data = bytearray(content)
    kind = rng.integers(5)
    if kind == 0:
        data = data[: rng.integers(len(data))]
    elif kind == 1:
        for place in rng.integers(0, len(data), 1 + rng.integers(20)):
            data[place] ^= 1 << rng.integers(8)
    elif kind == 2:
        start = rng.integers(len(data))
        data[start : start + 30] = bytes(30)
    elif kind == 3:
        start = rng.integers(2, 30)
        data[start : start + 4] = b"\x7f\xff\xff\xff"
    else:
        data = bytearray(rng.bytes(200))
    return bytes(data)


@pytest.mark.parametrize("count", [50, pytest.param(500, marks=pytest.mark.full)])
def test_mutated_files_are_read_or_named(tmp_path, count):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (24, 30, 3), dtype=np.uint8))
    kinds = {}
    for kind in ("jpeg", "png", "gif", "webp", "bmp"):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        kinds[kind] = buffer.getvalue()
    named = 0
    for number in range(count):
        kind = list(kinds)[number % len(kinds)]
        path = tmp_path / f"{number}.{list(kinds)[(number // 7) % len(kinds)]}"
        path.write_bytes(mutated(rng, kinds[kind]))
        try:
            assert decode(str(path), (8, 8)).shape == (8, 8, 3)
        except BadImageError as error:
            named += 1
            assert str(path) in str(error)
    assert 0.3 * count < named < count


def test_pipes_and_devices_are_named_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    for path in tmp_path.iterdir():
        with pytest.raises(BadImageError, match=f"{path.name}.*not a regular file"):
            decode(path, (8, 8))
    found = check_images(tmp_path)
    assert found.files == 2 and {reason for _, reason in found.unreadable} == {"it is not a regular file"}


def test_what_follows_an_image_is_not_read_for_ever(tmp_path, monkeypatch):
    path = tmp_path / "long.jpg"
    save(path, 0)
    pixels = decode(path)
    with path.open("ab") as file:
        file.truncate(2**31)  # sparse: it takes no room on the disk, but all the memory if it is read
    read, real = [], os.read
    monkeypatch.setattr(os, "read", lambda *where: read.append(where[1]) or real(*where))
    np.testing.assert_array_equal(decode(path), pixels)
    assert sum(read) < 2**28


def test_a_header_that_pillow_refuses_is_refused(tmp_path):
    save(tmp_path / "a.jpg", 0)
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(content[:2] + b"\xff\xe0\x00\x08JFIF\x01\x02" + content[2:])
    with pytest.raises(BadImageError, match=r"b\.jpg"):
        decode(tmp_path / "b.jpg")  # `check_images` finds it, so it must not be trained on


def test_an_error_without_a_text_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_plain_jpeg", mock.Mock(side_effect=MemoryError))
    save(tmp_path / "a.png", 0)
    with pytest.raises(BadImageError, match=r"a\.png.*MemoryError"):
        decode(tmp_path / "a.png")


def jpeg(rng):
    """A JPEG file of some size and kind; none of them has an orientation."""
    height, width = rng.integers(1, 120, 2)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    mode, buffer = ("RGB", "RGB", "L", "CMYK")[rng.integers(4)], io.BytesIO()
    options = {"subsampling": int(rng.integers(3))} if mode == "RGB" else {}
    options |= {"progressive": bool(rng.integers(2)), "quality": int(rng.integers(5, 99))}
    options |= {"restart_marker_blocks": int(rng.integers(3))}
    Image.fromarray(coarse).resize((width, height)).convert(mode).save(buffer, "jpeg", **options)
    return buffer.getvalue()


def outcome(path, size):
    """Pixels, or why there are none."""
    try:
        return decode(path, size)
    except BadImageError as error:
        return str(error)


@pytest.mark.parametrize("count", [50, pytest.param(500, marks=pytest.mark.full)])
def test_two_decoders_of_jpeg_agree_on_every_file(tmp_path, monkeypatch, count):
    rng = np.random.default_rng(0)
    found, sizes, quick = [], [None, (8, 8), (20, 30), (40, 60)], 0
    for number in range(count):
        path = tmp_path / f"{number}.jpg"
        content = jpeg(rng)
        path.write_bytes(mutated(rng, content) if number % 2 else content)
        size = sizes[rng.integers(len(sizes))]
        quick += module._plain_size(path.read_bytes()) is not None
        found.append((path, size, outcome(path, size)))
    assert count / 3 < quick < count
    for path, size, pixels in found:
        if size and not isinstance(pixels, str):
            out = np.zeros((2, *size, 3), np.uint8)
            assert np.shares_memory(decode(path, size, out=out[1]), out)
            np.testing.assert_array_equal(out, [np.zeros_like(pixels), pixels], str(path))
    monkeypatch.setattr(module, "_plain_jpeg", lambda *_: None)  # Pillow alone
    for path, size, pixels in found:
        np.testing.assert_array_equal(pixels, outcome(path, size), str(path))
    assert len({isinstance(pixels, str) for *_, pixels in found}) == 2
