"""Labels from CSV and TSV files and data frames: columns, tasks, splits, weights, errors with their place."""

import numpy as np
import pytest
from PIL import Image

from tfopt.data import load


@pytest.fixture
def folder(tmp_path):
    """40 pictures in a sub-folder, whose red channel is their number."""
    (tmp_path / "pics").mkdir()
    for i in range(40):
        Image.new("RGB", (6, 5), (i, 0, 200)).save(tmp_path / "pics" / f"{i}.png")
    return tmp_path


def write(folder, header, row, count=40, name="data.csv"):
    lines = [header] if header else []
    (folder / name).write_text("\n".join([*lines, *(row(i) for i in range(count))]) + "\n")
    return folder / name


def labels(dataset):
    """By the number of the picture."""
    return {int(image[0, 0, 0]): np.asarray(label) for image, label, *_ in dataset}


ALL = {"validation_split": 0, "test_split": 0}
NAMES = ("ant", "bee", "cat", "dog")


def several(i):
    return "|".join(name for place, name in enumerate(NAMES) if i % (place + 2) == 0)


def by_places(i):
    return [i % place == 0 for place in range(2, 6)]


@pytest.mark.parametrize(
    "header, cells, task, names, label",
    [
        ("filename,label", "pics/{i}.png,{name}", "classification", NAMES, lambda i: i % 4),
        ("Class;Image Path", "{four};pics/{i}.png", "classification", tuple("0123"), lambda i: i % 4),
        (None, "pics\\{i}.png\t{name}", "classification", NAMES, lambda i: i % 4),
        ("id,breed", "pics/{i},{name}", "classification", NAMES, lambda i: i % 4),
        ("file,tags", "pics/{i}.png,{tags}", "multilabel", NAMES, by_places),
        ("file,labels,comment", 'pics/{i}.png,"{commas}",x', "multilabel", NAMES, by_places),
        ("image,ripe,bad", "pics/{i}.png,1,{odd}", "multilabel", ("ripe", "bad"), lambda i: [1, i % 2]),
        ("image,yes,no", "pics/{i}.png,{even},{odd}", "classification", ("yes", "no"), lambda i: i % 2),
        ("path,target", "pics/{i}.png,{half}", "regression", ("target",), lambda i: [i / 2]),
        ("path,age", "pics/{i}.png,{i}", "regression", ("age",), lambda i: [i]),
    ],
)
def test_columns_and_task_are_found_and_told(folder, header, cells, task, names, label, caplog):
    def row(i):
        texts = {"name": NAMES[i % 4], "tags": several(i), "commas": several(i).replace("|", ", ")}
        return cells.format(i=i, four=i % 4, odd=i % 2, even=1 - i % 2, half=i / 2, **texts)

    data = load(write(folder, header, row), **ALL)
    assert data.task == task and data.class_names == names and data.source.endswith("data.csv")
    found = labels(data.resized(8).train)
    assert sorted(found) == list(range(40))
    for i, value in found.items():
        np.testing.assert_allclose(value, np.asarray(label(i), np.float32))
    assert any(note.startswith("columns: ") for note in data.notes)
    assert any(task in note for note in data.notes) and task in caplog.text


def test_columns_task_and_separator_are_taken_as_given(folder):
    file = write(folder, "a,b,x,y", lambda i: f"pics/{i}.png,p{i % 2}~q,{i},{i / 2}")
    data = load(file, label_column="b", separator="~", **ALL)
    assert data.task == "multilabel" and data.class_names == ("p0", "p1", "q")
    data = load(file, label_column=["y", "x"], image_column="a", **ALL)
    assert data.task == "regression" and data.class_names == ("y", "x")
    np.testing.assert_allclose(labels(data.train)[7], [3.5, 7])
    data = load(file, label_column="b", class_names=("p1~q", "p0~q"), **ALL)
    assert data.class_names == ("p1~q", "p0~q") and labels(data.train)[0] == 1
    whole = write(folder, "image,age", lambda i: f"pics/{i}.png,{i % 4}", name="whole.csv")
    assert load(whole, task="regression", **ALL).task == "regression"
    assert load(whole, **ALL).class_names == ("0", "1", "2", "3")


def test_splits_and_weights_are_kept(folder):
    def row(i):
        return f"pics/{i}.png,{NAMES[i % 2]},{('training', 'dev', 'Testing', 'train')[i % 4 // 1]},{i / 10}"

    data = load(write(folder, "image,label,split,weight", row))
    assert data.example_counts == {"train": 20, "validation": 10, "test": 10} and data.has_sample_weights
    for image, _, weight in data.train:
        assert float(weight) == pytest.approx(int(image[0, 0, 0]) / 10)
    assert sorted(labels(data.test)) == list(range(2, 40, 4))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_tables_of_spreadsheets_are_read(folder, encoding):
    rows = [f"pics/{i};{('é', 'ü')[i % 2]}" for i in range(40)]
    (folder / "sheet.csv").write_bytes("\r\n".join(["id_code;diagnosis", *rows]).encode(encoding))
    data = load(folder / "sheet.csv", **ALL)
    assert data.class_names == ("é", "ü") and data.class_counts == {"train": [20, 20]}


def test_names_with_commas_are_no_several_labels(folder):
    names = ("tench, Tinca tinca", "goldfish, Carassius auratus", "hen")
    data = load(write(folder, "image,label", lambda i: f'pics/{i}.png,"{names[i % 3]}"'), **ALL)
    assert data.task == "classification" and set(data.class_names) == set(names)


def test_rows_of_one_image_belong_together_for_several_labels(folder):
    file = write(folder, "image,label", lambda i: f"pics/{i // 2}.png,{NAMES[i % 4]}")
    data = load(file, task="multilabel", **ALL)
    assert data.example_counts == {"train": 20} and labels(data.train)[1].tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match="row 3, column 'image': the same file as in row 2.*multilabel"):
        load(file)


class Frame:
    """The part of a pandas data frame that is used, where pandas is not installed."""

    def __init__(self, columns):
        self.data, self.columns = columns, list(columns)

    def __getitem__(self, name):
        return self.data[name]

    def __len__(self):
        return len(self.data[self.columns[0]])


@pytest.mark.parametrize("kind", ["pandas", "like it"])
def test_data_frames(folder, kind):
    make = pytest.importorskip("pandas").DataFrame if kind == "pandas" else Frame
    columns = {"image": [f"pics/{i}.png" for i in range(40)], "label": np.arange(40) / 3}
    data = load(make(columns), data_dir=str(folder), **ALL)
    assert data.task == "regression" and labels(data.train)[9] == 3
    columns["label"][5] = np.nan
    with pytest.raises(ValueError, match="data frame, row 5, column 'label': the cell is empty"):
        load(make(columns), data_dir=str(folder), task="regression")


@pytest.mark.parametrize(
    "header, change, options, text",
    [
        (
            "image,label",
            {4: "pics/none.png,ant"},
            {},
            r"row 6, column 'image': there is no file 'pics/none.png'",
        ),
        ("image,label", {4: ",ant"}, {}, "row 6, column 'image': the cell is empty"),
        ("image,label", {4: "pics/4.png,"}, {}, "row 6, column 'label': the label is empty"),
        ("image,label", {4: "pics/3.png,ant"}, {}, "row 6, column 'image': the same file as in row 5"),
        ("image,label", {4: "pics/4.png,a,b"}, {}, "row 6 has 3 cells, but there are 2 columns"),
        ("image,label", {4: "pics/4.png,x"}, {"class_names": NAMES}, "row 6, column 'label': 'x' is none of"),
        (
            "image,label",
            {},
            {"label_column": "klass"},
            r"`label_column` must be a column of .*\['image', 'label'\]",
        ),
        ("image,label", {}, {"task": "regression"}, "row 2, column 'label': 'ant' is no number"),
        ("image,image", {}, {}, "two columns of one name"),
        ("one,two", {i: f"{i},{i}" for i in range(40)}, {}, "Pass `image_column`"),
        ("image,split", {i: f"pics/{i}.png,spare" for i in range(40)}, {}, "Pass `label_column`"),
        ("image,label", {i: f"pics/{i}.png,one" for i in range(40)}, {}, "two classes"),
    ],
)
def test_errors_name_row_and_column(folder, header, change, options, text):
    file = write(folder, header, lambda i: change.get(i, f"pics/{i}.png,{NAMES[i % 4]}"))
    with pytest.raises(ValueError, match=text):
        load(file, **options)


@pytest.mark.parametrize(
    "last, text",
    [
        ("spare,1", "row 41, column 'split': 'spare' is no split"),
        ("train,-1", "row 41, column 'weight': a sample weight is a number >= 0, not '-1'"),
        ("train,heavy", "row 41, column 'weight'"),
    ],
)
def test_errors_of_splits_and_weights(folder, last, text):
    def row(i):
        return f"pics/{i}.png,{NAMES[i % 2]},{last if i == 39 else 'train,1'}"

    with pytest.raises(ValueError, match=text):
        load(write(folder, "image,label,split,weight", row))


def test_classes_must_be_in_train(folder):
    file = write(
        folder,
        "image,label,split",
        lambda i: f"pics/{i}.png,{NAMES[i // 10]},{'test' if i > 29 else 'train'}",
    )
    with pytest.raises(ValueError, match=r"without images in train.*\['dog'\]"):
        load(file)


def test_missing_files_are_left_out_on_request(folder):
    file = write(folder, "image,label", lambda i: f"pics/{i + 2}.png,{NAMES[i % 2]}")
    data = load(file, on_bad_image="skip", **ALL)
    assert data.example_counts == {"train": 38} and len(data.skipped) == 2
    assert any("2 rows without a file" in note for note in data.notes)


def test_options_of_tables_are_refused_elsewhere(folder):
    with pytest.raises(ValueError, match="a CSV or TSV file.*label_column"):
        load("digits", label_column="x")
    with pytest.raises(ValueError, match="`task` must be"):
        load("digits", task="regression")


def test_a_decimal_comma_is_no_separator_of_labels(folder):
    """ "0,5" became the labels 0 and 5."""
    path = write(folder, "file;label", lambda i: f"pics/{i}.png;{i % 7},5")
    with pytest.raises(ValueError, match="row 2, column 'label': '0,5' may be one number or two labels"):
        load(path)
    assert load(path, task="multilabel").class_names == tuple("0123456")
    assert load(path, separator=",").task == "multilabel"


def test_a_label_that_looks_like_a_weight_is_named_in_the_way_out(folder):
    path = write(folder, "file,weight", lambda i: f"pics/{i}.png,{i}.5")
    with pytest.raises(
        ValueError, match=r"`label_column`, one name or several: \['weight'\].*sample weights"
    ):
        load(path)
    found = load(path, label_column="weight")
    assert found.task == "regression" and not found.has_sample_weights
