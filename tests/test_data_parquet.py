"""Image sets in Parquet files, in the form of Hugging Face's `datasets`."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from tfopt.data import BadImageError, find_leaks, load

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def encoded(number):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), (number * 5, 0, 90)).save(buffer, "png")
    return buffer.getvalue()


def write(path, numbers, labels, images=None, names=None):
    images = images or [{"bytes": encoded(number), "path": None} for number in numbers]
    table = pyarrow.table({"image": images, "label": labels})
    if names:
        feature = {"names": names, "_type": "ClassLabel"}
        about = {"info": {"features": {"image": {"_type": "Image"}, "label": feature}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path)


def test_splits_names_and_labels(tmp_path):
    for part in range(2):
        numbers = range(part * 10, part * 10 + 10)
        name = f"train-0000{part}-of-00002.parquet"
        write(tmp_path / "data" / name, numbers, [i % 2 for i in numbers], names=["cat", "dog"])
    write(tmp_path / "data" / "test-00000-of-00001.parquet", range(20, 26), [0, 1] * 3)
    data = load(tmp_path, validation_split=0.2)
    assert data.class_names == ("cat", "dog")
    assert data.class_counts == {"train": [8, 8], "validation": [2, 2], "test": [3, 3]}
    for split in data.resized(4).splits().values():
        assert all(int(image[0, 0, 0]) // 5 % 2 == int(label) for image, label in split)
    assert not find_leaks(data) and data.fingerprint() == load(tmp_path, validation_split=0.2).fingerprint()
    assert data.fingerprint() != load(tmp_path, validation_split=0).fingerprint()


def test_text_labels_numbers_and_damage(tmp_path):
    write(tmp_path / "a.parquet", range(10), ["x", "y"] * 5)
    assert load(tmp_path / "a.parquet").class_names == ("x", "y")
    write(tmp_path / "b.parquet", range(10), (np.arange(10) / 3).tolist())
    assert load(tmp_path / "b.parquet").task == "regression"
    write(tmp_path / "c.parquet", range(10), [0, 1] * 5, [encoded(i) for i in range(9)] + [b"no image"])
    with pytest.raises(Exception, match="c.parquet.*row 9"):
        list(load(tmp_path / "c.parquet", validation_split=0, test_split=0).train)
    assert issubclass(BadImageError, ValueError)


def test_a_parquet_file_beside_class_folders_is_no_data(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.png").write_bytes(encoded(i))
    write(tmp_path / "meta.parquet", range(2), [0, 1])
    assert load(tmp_path).class_names == ("a", "b")


def test_tables_without_images_or_labels_are_refused(tmp_path):
    write(tmp_path / "a.parquet", [], [0, 1], [{"bytes": None, "path": "x.png"}] * 2)
    with pytest.raises(ValueError, match="with images, not with paths only|of encoded images"):
        load(tmp_path / "a.parquet")
    parquet.write_table(pyarrow.table({"text": ["a"], "label": [1]}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"a column of images.*It has \['text', 'label'\]"):
        load(tmp_path / "b.parquet")
